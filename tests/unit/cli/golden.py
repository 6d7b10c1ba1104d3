"""Texts that are reviewed as files: tests/golden/cli. WARPCTL_UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "golden" / "cli"


def check(name: str, text: str) -> None:
    """`text` is what the golden file `name` holds."""
    path = FOLDER / name
    if os.environ.get("WARPCTL_UPDATE_GOLDEN"):
        path.write_text(text)

    assert text == path.read_text(), f"differs from {path.name}; WARPCTL_UPDATE_GOLDEN=1 accepts it"
