"""Import every module of the control plane and the slim workers, and say which heavy library came along.

A program of its own, since what is imported once stays: `python slim_modules.py` prints the modules and exits with 1 when a
heavy library was imported. The wheel's smoke test runs it where these libraries do not exist.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HEAVY_LIBRARIES = ("torch", "transformers", "accelerate", "safetensors", "tokenizers", "pyarrow", "tensorflow", "jax")
EXTRAS = ("warpctl.storage.s3",)
"""Needs the extra s3; imported only for s3:// URIs."""
TORCH = ("warpctl.rl", "warpctl.tiny", "warpctl.workers")
"""The floors that may use torch; everything else may not, by any chain."""
SLIM_WORKERS = (
    "warpctl.workers.harness",
    "warpctl.workers.import_",
    "warpctl.workers.imports",
    "warpctl.workers.merge",
    "warpctl.workers.merge_folders",
    "warpctl.workers.report",
    "warpctl.workers.sources",
)
"""The workers that run the slim image all the same."""


def slim_modules() -> list[str]:
    """Names of all modules that must do without torch and without extras; nothing is imported to find them."""
    import warpctl

    top = Path(warpctl.__path__[0])
    files = (path.relative_to(top.parent).with_suffix("") for path in top.rglob("*.py"))
    names = {".".join(file.parts).removesuffix(".__init__") for file in files}
    return sorted(name for name in names if _is_slim(name) and not name.endswith(".__main__"))


def _is_slim(name: str) -> bool:
    return _is_below(name, SLIM_WORKERS) or not _is_below(name, (*TORCH, *EXTRAS))


def _is_below(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def main() -> int:
    for name in slim_modules():
        importlib.import_module(name)
        sys.stdout.write(f"{name}\n")
        heavy = sorted(library for library in HEAVY_LIBRARIES if library in sys.modules)
        if heavy:
            sys.stderr.write(f"error: {name} imports {', '.join(heavy)}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
