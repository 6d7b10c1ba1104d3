"""Durations as people read and write them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from warpctl.errors import UserError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration_text(seconds: float) -> str:
    """0.4 s, 12.3 s, 1m02s, 2h10m, 3d04h."""
    if seconds < 59.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def seconds_between(started: str, ended: str) -> float | None:
    """Seconds between two ISO 8601 instants; None when one of them is missing."""
    if not started or not ended:
        return None
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()


def parse_duration(text: str) -> timedelta:
    """90s, 30m, 12h, 7d; UserError for anything else."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text.strip())
    if match is None:
        raise UserError(f'"{text}" is not a duration', hint="write a whole number and s, m, h or d: 30m, 12h, 7d")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
