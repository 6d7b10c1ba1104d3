"""Sizes as people write them."""

from __future__ import annotations

import re
from typing import Final

from warpctl.errors import UserError

_FACTORS: Final = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 1024, "MI": 1024**2, "GI": 1024**3}


def parse_size(text: str, *, option: str) -> int:
    """Bytes of 4GiB, 512MiB, 5GB, 5G or 1000000; UserError for anything else, and for nothing."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)([KMG]I?|)B?", text.strip().upper())
    size = int(float(match[1]) * _FACTORS[match[2]]) if match else 0
    if not size:
        raise UserError(f'{option} must be a size, got "{text}"', hint="for example: 4GiB, 512MiB, 5GB")
    return size


def size_text(num_bytes: int) -> str:
    """Decimal units, as disks and clouds count: 137.2 GB."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
