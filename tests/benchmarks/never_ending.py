"""A policy that never ends a completion, made of one that does: equal completion lengths for everybody, at no cost to anybody.

Its end-of-sequence token has the number behind the last word of the vocabulary. The model has no logit for it, so nobody
can sample it, and no logits processor is needed to forbid it; both sides look for it after every token as ever.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

END = "<never>"


def make_never_ending(policy: Path, folder: Path) -> Path:
    """Copy the folder `policy` to `folder` with another end-of-sequence token; the weights stay as they are."""
    shutil.copytree(policy, folder)
    config = _read(folder / "config.json")
    end: int = config["vocab_size"]
    _write(folder / "config.json", {**config, "eos_token_id": end})
    generation = _read(folder / "generation_config.json")
    generation.pop("max_new_tokens", None)
    _write(folder / "generation_config.json", {**generation, "eos_token_id": end})
    _write(folder / "tokenizer_config.json", {**_read(folder / "tokenizer_config.json"), "eos_token": END})
    tokenizer = _read(folder / "tokenizer.json")
    added = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    tokenizer["added_tokens"].append({"id": end, "content": END, **added})
    _write(folder / "tokenizer.json", tokenizer)
    return folder


def _read(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(path.read_text())
    return body


def _write(path: Path, body: dict[str, Any]) -> None:
    path.write_text(json.dumps(body, indent=1))
