"""Plain columns, never cut: the same in a terminal, a pipe and a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from warpctl.cli.terminal import BOLD, paint, spell


def table_text(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, styles: Mapping[int, str] | None = None
) -> str:
    """Left-aligned columns, two spaces apart; `styles` gives rows (by index) a style."""
    lines = [[spell(cell, sys.stdout) for cell in row] for row in (columns, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    styled = [paint(line, (styles or {}).get(index, ""), sys.stdout) for index, line in enumerate(padded[1:])]
    return "\n".join([paint(padded[0], BOLD, sys.stdout), *styled])
