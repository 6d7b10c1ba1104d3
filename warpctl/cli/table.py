"""Plain columns, never cut. Where a terminal is too narrow for them each row becomes a block of its own, with all of its cells."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from warpctl.cli.terminal import BOLD, paint, spell
from warpctl.cli.terminal import columns as terminal_columns


def table_text(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    styles: Mapping[int, str] | None = None,
) -> str:
    """Left-aligned columns, two spaces apart; `styles` gives rows (by index) a style."""
    lines = [[spell(cell, sys.stdout) for cell in row] for row in (columns, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    limit = terminal_columns(sys.stdout)
    if limit is not None and max(map(len, padded)) > limit:
        return _blocks(lines[0], lines[1:], styles or {})
    styled = [paint(line, (styles or {}).get(index, ""), sys.stdout) for index, line in enumerate(padded[1:])]
    return "\n".join([paint(padded[0], BOLD, sys.stdout), *styled])


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[int, str]) -> str:
    """`NAME  cell` lines, a row's first one flush left; empty cells are left out."""
    indent = max(len(column) for column in columns)
    blocks = []
    for index, row in enumerate(rows):
        cells = [(column, cell) for column, cell in zip(columns, row, strict=True) if cell]
        lines = [
            f"{'' if place == 0 else '  '}{column.ljust(indent)}  {cell}" for place, (column, cell) in enumerate(cells)
        ]
        blocks.append("\n".join(paint(line, styles.get(index, ""), sys.stdout) for line in lines))
    return "\n".join(blocks)
