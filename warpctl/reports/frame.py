"""Where values lie in a plot, in pixels: domains of both axes, ticks of the KL axis, places for labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from warpctl.reports.label_places import Placed, Position, place_labels
from warpctl.reports.plotted import Plotted, liti_line
from warpctl.reports.trajectories import Trajectory

_KL_TICKS = (0.05, 0.1, 0.25, 0.5, *(factor * 10**power for power in range(4) for factor in (1, 2, 5)))
_TICK_DISTANCE = 40  # pixels


@dataclass(frozen=True)
class Size:
    """Of the plot alone, in pixels."""

    width: int
    height: int


@dataclass(frozen=True)
class Frame:
    """Domains of both axes and the plot's size: where a value lies in pixels."""

    x: tuple[float, float]
    y: tuple[float, float]
    size: Size
    is_kl: bool

    @classmethod
    def of(cls, points: Sequence[Plotted], trajectories: Sequence[Trajectory], size: Size, *, is_kl: bool) -> Frame:
        across = [bound for point in points for bound in (point.x.low, point.x.high)]
        upright = [bound for point in points for bound in (point.y.low, point.y.high)]
        across += [kl for each in trajectories for kl in each.kl]
        upright += [reward for each in trajectories for reward in each.reward]
        x = (0.0, max([1e-3, *across]) * 1.03) if is_kl else _padded(across)
        return cls(x, _padded(upright), size, is_kl)

    def kl_ticks(self) -> list[float]:
        """0 and round KLs, none so close to the next that their labels would touch; Vega would crowd them on the right."""
        largest = self.x[1]
        distance = _TICK_DISTANCE / self.size.width * math.sqrt(largest)
        ticks: list[float] = []
        for tick in reversed([tick for tick in _KL_TICKS if distance <= math.sqrt(tick) and tick <= largest]):
            if not ticks or math.sqrt(ticks[0]) - math.sqrt(tick) >= distance:
                ticks.insert(0, tick)
        return [0, *ticks]

    def at(self, x: float, y: float) -> Position:
        """Pixels of a value."""
        low, high = self.x
        across = math.sqrt(max(x, 0.0) / high) if self.is_kl else (x - low) / (high - low)
        upright = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.size.width * across, self.size.height * (1 - upright)

    def position(self, point: Plotted) -> Position:
        return self.at(point.x.mean, point.y.mean)

    def bars(self, point: Plotted) -> tuple[list[Position], list[Position]]:
        """Both intervals as lines."""
        x, y = point.x, point.y
        return [self.at(x.low, y.mean), self.at(x.high, y.mean)], [self.at(x.mean, y.low), self.at(x.mean, y.high)]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def label_places(points: Sequence[Plotted], frame: Frame) -> list[Placed | None]:
    """The last series chooses first: it is what the run puts out."""
    order = sorted((i for i, point in enumerate(points) if point.label), key=lambda i: (-_rank(points[i]), i))
    names = dict.fromkeys(point.series for point in points)
    places = place_labels(
        [(frame.position(points[i]), points[i].label) for i in order],
        markers=[frame.position(point) for point in points],
        lines=[
            *([frame.position(point) for point in liti_line(points, name)] for name in names),
            *(bar for point in points for bar in frame.bars(point)),
        ],
        width=frame.size.width,
        height=frame.size.height,
    )
    found: list[Placed | None] = [None] * len(points)
    for i, place in zip(order, places, strict=True):
        found[i] = place
    return found


def _rank(point: Plotted) -> int:
    number = point.series.rpartition(" ")[2]
    return int(number) if number.isdigit() else 0
