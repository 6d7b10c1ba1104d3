"""Where a marker's label goes: beside its marker, on no other marker and no other label, off the lines where it can.

A label that fits nowhere is left out: the table and the tooltip have it. Coordinates are pixels of the plot, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Position = tuple[float, float]

MARKER_RADIUS = 5.5
_CHARACTER_WIDTH, _HEIGHT = 6.2, 11.0  # of the font size 10.5, generous
_STEP = 4.0  # between the samples of a line


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def around(cls, centre: Position, width: float, height: float) -> Box:
        x, y = centre
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def contains(self, place: Position) -> bool:
        return self.left < place[0] < self.right and self.top < place[1] < self.bottom


@dataclass(frozen=True)
class Placed:
    """The centre of a label, from its marker's."""

    dx: float
    dy: float


def place_labels(
    labels: Sequence[tuple[Position, str]],
    *,
    markers: Sequence[Position],
    lines: Sequence[Sequence[Position]],
    width: float,
    height: float,
) -> tuple[Placed | None, ...]:
    """A place for each (marker, text), earlier ones choosing first; None where there is none left."""
    samples = [place for line in lines for place in _along(line)]
    boxes = [Box.around(marker, 2 * MARKER_RADIUS, 2 * MARKER_RADIUS) for marker in markers]
    taken: list[Box] = []
    found: list[Placed | None] = []
    for marker, text in labels:
        size = (_CHARACTER_WIDTH * len(text), _HEIGHT)
        best: tuple[int, Box, Placed] | None = None
        for place in _candidates(*size):
            box = Box.around((marker[0] + place.dx, marker[1] + place.dy), *size)
            if box.left < 0 or box.top < 0 or box.right > width or box.bottom > height:
                continue
            if any(box.overlaps(other) for other in (*boxes, *taken)):
                continue
            crossed = sum(box.contains(sample) for sample in samples)
            if best is None or crossed < best[0]:
                best = (crossed, box, place)
        found.append(best[2] if best else None)
        if best:
            taken.append(best[1])
    return tuple(found)


def _candidates(width: float, height: float) -> list[Placed]:
    """Around the marker, the corners away from a rising line first, then somewhat farther out."""
    places = []
    for gap in (2.0, 7.0):
        x, y = MARKER_RADIUS + gap + width / 2, MARKER_RADIUS + gap + height / 2
        diagonal = (x * 0.8, y * 0.8)
        places += [
            Placed(diagonal[0], diagonal[1]),
            Placed(-diagonal[0], -diagonal[1]),
            Placed(0, y),
            Placed(0, -y),
            Placed(x, 0),
            Placed(-x, 0),
            Placed(diagonal[0], -diagonal[1]),
            Placed(-diagonal[0], diagonal[1]),
        ]
    return places


def _along(line: Sequence[Position]) -> list[Position]:
    """Samples of a polyline, every few pixels."""
    found: list[Position] = []
    for (x, y), (to_x, to_y) in pairwise(line):
        count = max(1, math.ceil(math.hypot(to_x - x, to_y - y) / _STEP))
        found += [(x + (to_x - x) * i / count, y + (to_y - y) * i / count) for i in range(count + 1)]
    return found
