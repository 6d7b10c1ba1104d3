"""The best point of a run: the highest held-out reward within a KL budget, the trained-on one where there is no other.

A point is judged by what it was not trained on: along a front the trained-on reward almost always rises, while a held-out one
shows where it is hacked (docs/evaluation.md). One function for the page, `status`, `run` and `export`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warpctl.reports.estimate import REWARD, Front, FrontPoint


@dataclass(frozen=True)
class ChosenPoint:
    """The best point of a front."""

    point: FrontPoint
    why: str
    """One clause: `highest held-out reward truth among 7 points with KL at most 20`."""
    measure: str
    """The reward that decided: a held-out one's name, or `reward`."""


@dataclass(frozen=True)
class ChosenEntry:
    """The best point of a front.json."""

    entry: Mapping[str, Any]
    """Its entry in `points`."""
    why: str
    measure: str


@dataclass(frozen=True)
class _Candidate:
    place: int
    is_control: bool
    kl: float
    values: Mapping[str, float]


def best_point(front: Front, *, max_kl: float | None) -> ChosenPoint | None:
    """The best of the run's own points with a mean KL of at most `max_kl` nats (None: no budget); None when there is none.

    Decides by the first held-out reward of the front; by the trained-on one where no point has a held-out reward.
    Equal rewards: the one of lower KL.
    """
    chosen = _best(
        [
            _Candidate(
                place,
                bool(point.named.control),
                point.kl.mean,
                {name: found.mean for name in front.measures if (found := point.measure(name)) is not None},
            )
            for place, point in enumerate(front.points)
        ],
        front.measures,
        max_kl=max_kl,
    )
    return None if chosen is None else ChosenPoint(front.points[chosen[0]], chosen[1], chosen[2])


def best_entry(
    document: Mapping[str, Any],
    *,
    max_kl: float | None,
    is_available: Callable[[Mapping[str, Any]], bool] = lambda _: True,
) -> ChosenEntry | None:
    """`best_point` of a front.json, among the points that `is_available` admits (such as: whose weights still exist)."""
    points = [point for point in document["points"] if is_available(point)]
    chosen = _best(
        [
            _Candidate(
                place,
                bool(point["control"]),
                point["kl"]["mean"],
                {REWARD: point["reward"]["mean"], **{name: each["mean"] for name, each in point["heldOut"].items()}},
            )
            for place, point in enumerate(points)
        ],
        document["measures"],
        max_kl=max_kl,
    )
    return None if chosen is None else ChosenEntry(points[chosen[0]], chosen[1], chosen[2])


def _best(
    candidates: Sequence[_Candidate], measures: Sequence[str], *, max_kl: float | None
) -> tuple[int, str, str] | None:
    """(place, why, measure)."""
    own = [each for each in candidates if not each.is_control]
    held_out = [name for name in measures if name != REWARD and any(name in each.values for each in own)]
    measure = held_out[0] if held_out else REWARD
    allowed = [each for each in own if measure in each.values and (max_kl is None or each.kl <= max_kl)]
    if not allowed:
        return None
    best = max(allowed, key=lambda each: (each.values[measure], -each.kl))
    what = f"held-out reward {measure}" if held_out else "trained-on reward (there is no held-out one)"
    count = f"{len(allowed)} point{'s' if len(allowed) > 1 else ''}"
    budget = "" if max_kl is None else f" with KL at most {max_kl:g}"
    return best.place, f"highest {what} among {count}{budget}", measure
