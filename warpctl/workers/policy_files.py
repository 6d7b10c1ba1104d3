"""Publish a policy: float32 safetensors under the names that its init has, with everything that lies beside them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.utils import logging

from warpctl.storage.artifact import Artifact
from warpctl.storage.publish import Publication

MAX_SHARD_SIZE = "4GB"
PIECE_BYTES = 16 * 1024 * 1024
CONFIG = "config.json"


def publish_policy(publication: Publication, model: Any, init: Artifact, prefix: str) -> None:
    """Write the model's weights and config, and copy tokenizer, generation config and chat template from its init.

    save_pretrained writes the weights, because it undoes the renaming that loading may have done: the files of init
    and policy hold the same names, as merging wants.
    """
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="warpctl-policy-") as folder:
        own_settings, model.generation_config = model.generation_config, GenerationConfig()  # init's file is published
        try:
            model.save_pretrained(folder, max_shard_size=MAX_SHARD_SIZE)
        finally:
            model.generation_config = own_settings
        written = [path for path in sorted(Path(folder).iterdir()) if _is_weights(path.name) or path.name == CONFIG]
        for path in written:
            with publication.open_file(path.name) as sink, path.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    sink.write(piece)
    for name in init.names(prefix):
        short = name.removeprefix(prefix)
        if not _is_weights(short) and short != CONFIG:
            publication.write_file(short, init.read(name))


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json"))
