"""Runs in mergekit's own environment: merge every recipe (name.json in a folder), in one process since imports are slow.

What a recipe gives is left in a folder of its name, or, if mergekit refuses it, in name.error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

folder = Path(sys.argv[1])
for path in sorted(folder.glob("*.json")):
    try:
        config = MergeConfiguration.model_validate(json.loads(path.read_text()))
        run_merge(config, str(folder / path.stem), MergeOptions(copy_tokenizer=False, quiet=True))
    except Exception as error:
        path.with_suffix(".error").write_text(f"{type(error).__name__}: {error}")
