"""Differences within one run, paired by prompt: each iteration's front against the one before, the last one against each
control's. comparison.py does the numbers, which knows two runs; a control is given to it as a run of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from warpctl.errors import InputError
from warpctl.reports.comparison import Comparison, compare
from warpctl.reports.estimate import LITI_PREFIX, Evaluated, distinct
from warpctl.reports.evaluation import SFT_POINT


@dataclass(frozen=True)
class FrontContrast:
    """One front minus another."""

    first: str
    """What is subtracted: `iteration 1`, `control NoAnchor`."""
    second: str
    comparison: Comparison


def contrasts(evaluated: Sequence[Evaluated], *, confidence_level: float, max_kl: float) -> tuple[FrontContrast, ...]:
    """Iteration i minus i - 1, then the last iteration minus each control; fronts that are not there yet are left out."""
    points = distinct(evaluated)
    own = [pair for pair in points if not pair[0].control]
    sft = [pair for pair in own if pair[0].name == SFT_POINT]
    fronts = [pair[0].iteration for pair in own if pair[0].name.startswith(LITI_PREFIX)]
    iterations = list(dict.fromkeys(fronts))
    settings = partial(compare, confidence_level=confidence_level, max_kl=max_kl)
    found = [
        _contrast(f"iteration {before}", f"iteration {after}", partial(settings, own, own, iterations=(before, after)))
        for before, after in pairwise(iterations)
    ]
    for control in dict.fromkeys(pair[0].control for pair in points if pair[0].control):
        run = [
            *sft,
            *((replace(named, control="", iteration=1), point) for named, point in points if named.control == control),
        ]
        if iterations:
            last = iterations[-1]
            compared = partial(settings, run, own, iterations=(1, last))
            found.append(_contrast(f"control {control}", f"iteration {last}", compared))
    return tuple(each for each in found if each is not None)


def _contrast(first: str, second: str, compared: Callable[[], Comparison]) -> FrontContrast | None:
    try:
        return FrontContrast(first, second, compared())
    except InputError:  # a control whose points are not there yet
        return None
