"""What the files of a model folder are called: by transformers, and by us. It imports nothing, so anybody may import it."""

from __future__ import annotations

from typing import Final

CONFIG: Final = "config.json"
"""Architecture and type of the weights: without it a folder is no model."""
WEIGHTS: Final = ".safetensors"
"""How the name of every file of tensors ends."""
SINGLE: Final = f"model{WEIGHTS}"
"""All tensors of a checkpoint that is one file."""
INDEX: Final = f"{SINGLE}.index.json"
"""In which of several files each tensor is."""
MERGE_RECORD: Final = "merge.json"
"""What a merge says of itself (merging/record.py)."""


def is_weights(name: str) -> bool:
    """Whether a file belongs to a checkpoint: tensors, or an index of them."""
    return name.endswith((WEIGHTS, f"{WEIGHTS}.index.json"))
