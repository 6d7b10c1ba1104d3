"""Publish a policy: float32 safetensors under the names that its init has, with everything that lies beside them."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.utils import logging

from warpctl.storage.artifact import Artifact
from warpctl.storage.file_names import CONFIG, is_weights
from warpctl.storage.parallel import run_all
from warpctl.storage.publish import Publication

MAX_SHARD_SIZE = "4GB"
PIECE_BYTES = 16 * 1024 * 1024
PARALLEL_FILES = 4
"""A store may take one file in order, and hashing takes one core a file; each has some parts on their way in memory."""


def publish_policy(
    publication: Publication, model: Any, init: Artifact, prefix: str, *, max_shard_size: str = MAX_SHARD_SIZE
) -> None:
    """Write the model's weights and config, and copy tokenizer, generation config and chat template from its init.

    save_pretrained writes the weights, because it undoes the renaming that loading may have done: the files of init
    and policy hold the same names, as merging wants. Its shards go to the store side by side, PARALLEL_FILES at a time.
    """
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="warpctl-policy-") as folder:
        own_settings, model.generation_config = model.generation_config, GenerationConfig()  # init's file is published
        try:
            model.save_pretrained(folder, max_shard_size=max_shard_size)
        finally:
            model.generation_config = own_settings
        written = [path for path in sorted(Path(folder).iterdir()) if is_weights(path.name) or path.name == CONFIG]
        run_all([functools.partial(_publish_file, publication, path) for path in written], parallel=PARALLEL_FILES)
    for name in init.names(prefix):
        short = name.removeprefix(prefix)
        if not is_weights(short) and short != CONFIG:
            publication.write_file(short, init.read(name))


def _publish_file(publication: Publication, path: Path) -> None:
    with publication.open_file(path.name) as sink, path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            sink.write(piece)
