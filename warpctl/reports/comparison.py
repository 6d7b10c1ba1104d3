"""The difference between the fronts of two runs, paired by prompt where both were evaluated on the same prompts.

A run's front is what it puts out: SFT and the LITI rates of one iteration, its last one unless told otherwise. Every
difference is second minus first. With the same prompts one resampling of them serves both runs (the noise of the prompts
cancels); with other prompts each run is resampled alone, the intervals are wider, and a note says so.
Shapes: P points of a front, N prompts, R replicates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpctl.errors import InputError
from warpctl.reports.bootstrap import NUM_REPLICATES, interval, replicate_means
from warpctl.reports.estimate import FIXED_KLS, MIN_REACHED, REWARD, Estimate, Evaluated, is_on_line
from warpctl.reports.evaluation import SFT_POINT
from warpctl.reports.front import area_between, hypervolume, reward_at_kl

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Contrast:
    """One number of both runs, and second minus first with the interval of the difference itself."""

    first: Estimate
    second: Estimate
    difference: Estimate


@dataclass(frozen=True)
class MeasureComparison:
    """Both fronts by one reward."""

    measure: str
    """`reward` (trained-on) or a held-out reward's name."""
    hypervolume: Contrast
    """Nats x reward against the fixed corner (max_kl, reward of each run's SFT policy)."""
    area: Contrast | None
    """Nats x reward under the fronts between the limits that both reach; None where they share no range of KL."""
    reward_at_kl: Mapping[float, Contrast]
    """By KL in nats; only the KLs that both fronts reach."""


@dataclass(frozen=True)
class Comparison:
    """Two fronts, measure by measure."""

    measures: tuple[MeasureComparison, ...]
    iterations: tuple[int, int]
    """Which iteration's front of each run."""
    kl_limits: tuple[float, float] | None
    """Nats between which the areas are taken: from the higher of the lowest KLs to the lower of the highest ones."""
    is_paired: bool
    num_prompts: tuple[int, int]
    max_kl: float
    confidence_level: float
    notes: tuple[str, ...]
    """What a reader must know before believing a difference, one sentence each; empty for like with like."""


def compare(
    first: Sequence[Evaluated],
    second: Sequence[Evaluated],
    *,
    confidence_level: float,
    max_kl: float,
    iterations: tuple[int, int] | None = None,
    seed: int = 0,
    num_replicates: int = NUM_REPLICATES,
) -> Comparison:
    """Compare the fronts of two runs. `max_kl`: KL of the hypervolume's corner. Raises InputError for a run without a front.

    A reward is compared where both runs judged by the same one (kind, content or revision, weight): else a note tells
    why it is left out. `seed` is that of the resampling: the same points give the same numbers.
    """
    lines = (
        output_line(first, iteration=iterations[0] if iterations else None),
        output_line(second, iteration=iterations[1] if iterations else None),
    )
    points = (lines[0][0][1], lines[1][0][1])  # SFT's
    is_paired = points[0].prompts == points[1].prompts
    resampled = _resampled(lines, is_paired=is_paired, seed=seed, num_replicates=num_replicates)
    kls = tuple(each["kl"][0] for each in resampled)
    limits = float(max(kl.min() for kl in kls)), float(min(kl.max() for kl in kls))
    kl_limits = (max(limits[0], 0.0), limits[1]) if limits[1] > max(limits[0], 0.0) else None
    names = [name for name in resampled[0] if name != "kl" and name in resampled[1]]
    same = [name for name in names if _is_same_reward(name, points[0].identity, points[1].identity)]
    return Comparison(
        measures=tuple(
            _measure(name, resampled, level=confidence_level, max_kl=max_kl, kl_limits=kl_limits) for name in same
        ),
        iterations=(lines[0][-1][0].iteration, lines[1][-1][0].iteration),
        kl_limits=kl_limits,
        is_paired=is_paired,
        num_prompts=(len(points[0].prompts), len(points[1].prompts)),
        max_kl=max_kl,
        confidence_level=confidence_level,
        notes=_notes(points[0].identity, points[1].identity, is_paired=is_paired)
        + tuple(f"the runs mean different rewards by {name}: not compared" for name in names if name not in same),
    )


def output_line(evaluated: Sequence[Evaluated], *, iteration: int | None = None) -> tuple[Evaluated, ...]:
    """SFT and the LITI rates of an iteration, by default the last one that has any; InputError when there is none."""
    own = [pair for pair in evaluated if not pair[0].control]
    lines = {pair[0].iteration for pair in own if is_on_line(pair[0], pair[0].iteration) and pair[0].name != SFT_POINT}
    wanted = max(lines, default=0) if iteration is None else iteration
    sft = [pair for pair in own if pair[0].name == SFT_POINT]
    if wanted not in lines or not sft:
        which = "no iteration" if iteration is None else f"iteration {iteration}"
        raise InputError(
            f"{which} of the run has a front yet", hint="a front needs the SFT policy and a LITI rate, both evaluated"
        )
    rates = [pair for pair in own if pair[0].name != SFT_POINT and is_on_line(pair[0], wanted)]
    return (sft[0], *sorted(rates, key=lambda pair: pair[0].liti_rate))


Columns = Mapping[str, tuple[Floats, Floats]]
"""By quantity: as estimated (P,), and in each replicate (R, P)."""


def _resampled(
    lines: tuple[Sequence[Evaluated], Sequence[Evaluated]], *, is_paired: bool, seed: int, num_replicates: int
) -> tuple[Columns, Columns]:
    quantities = [_quantities(line) for line in lines]
    # The same seed and number of prompts draws the same prompts; unpaired runs draw each its own.
    seeds = [np.random.SeedSequence(seed)] * 2 if is_paired else np.random.SeedSequence(seed).spawn(2)
    columns = []
    for per_run, run_seed in zip(quantities, seeds, strict=True):
        values_KN = np.concatenate(list(per_run.values()))
        means_KR = replicate_means(values_KN, generator=np.random.default_rng(run_seed), num_replicates=num_replicates)
        size = len(next(iter(per_run.values())))
        columns.append(
            {
                name: (values_PN.mean(axis=1), means_KR[place * size : (place + 1) * size].T)
                for place, (name, values_PN) in enumerate(per_run.items())
            }
        )
    return columns[0], columns[1]


def _quantities(line: Sequence[Evaluated]) -> dict[str, Floats]:
    """Per point and prompt (P, N): KL and every reward that all points of the line were judged by."""
    points = [point for _, point in line]
    held_out = [name for name in points[0].held_out if all(name in point.held_out for point in points)]
    return {
        "kl": np.stack([point.per_prompt(point.kl_rb) for point in points]),
        REWARD: np.stack([point.per_prompt(point.reward) for point in points]),
        **{name: np.stack([point.per_prompt(point.held_out[name]) for point in points]) for name in held_out},
    }


Fronts = tuple[tuple[Floats, Floats], tuple[Floats, Floats]]
"""KL and reward of a front as estimated, (P,) each; then in each replicate, (R, P) each."""


def _measure(
    name: str,
    resampled: tuple[Columns, Columns],
    *,
    level: float,
    max_kl: float,
    kl_limits: tuple[float, float] | None,
) -> MeasureComparison:
    def contrast(number: Callable[[Floats, Floats], Floats]) -> Contrast | None:
        """`number` maps KL and reward (..., P) to (...); None where one front, or too few replicates, have no number."""
        (first, first_R), (second, second_R) = ([number(*front) for front in fronts] for fronts in both)
        is_known_R = np.isfinite(first_R) & np.isfinite(second_R)
        if not (np.isfinite(first) and np.isfinite(second)) or is_known_R.mean() < MIN_REACHED:
            return None
        parts = ((first, first_R), (second, second_R), (second - first, second_R - first_R))
        return Contrast(*(_bounded(float(mean), values_R[is_known_R], level) for mean, values_R in parts))

    both: list[Fronts] = [
        ((columns["kl"][0], columns[name][0]), (columns["kl"][1], columns[name][1])) for columns in resampled
    ]
    # SFT is the first point of a line: its reward is the corner of the hypervolume, in each replicate its own.
    volume = contrast(lambda kl, reward: hypervolume(kl, reward, max_kl=max_kl, reference_reward=reward[..., 0]))
    if volume is None:
        raise InputError(f"the hypervolume of {name} is not a number", hint="a point's KL or reward overflowed")
    area = None
    if kl_limits is not None:
        low, high = kl_limits
        area = contrast(lambda kl, reward: area_between(kl, reward, low=low, high=high))
    at_kl = {at: contrast(partial(reward_at_kl, at=at)) for at in FIXED_KLS}
    return MeasureComparison(name, volume, area, {at: found for at, found in at_kl.items() if found is not None})


def _bounded(mean: float, replicates_R: Floats, level: float) -> Estimate:
    low, high = interval(replicates_R, level=level)
    return Estimate(mean, float(low), float(high))


def _is_same_reward(name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    if name == REWARD:
        return bool(first.get("rewards") == second.get("rewards"))
    return bool(_held_out(name, first) == _held_out(name, second))


def _held_out(name: str, identity: Mapping[str, Any]) -> Any:
    return next((each for each in identity.get("heldOutRewards", ()) if each["name"] == name), None)


def _notes(first: Mapping[str, Any], second: Mapping[str, Any], *, is_paired: bool) -> tuple[str, ...]:
    notes = []
    if first.get("sft") != second.get("sft"):
        notes.append("the runs start from different SFT policies: their KL axes have different origins")
    if first.get("sampling") != second.get("sampling"):
        notes.append("the runs sample differently: KL and reward are those of different distributions")
    if not is_paired:
        notes.append("the runs were evaluated on different prompts: the differences are not paired")
    elif first.get("seed") != second.get("seed"):
        notes.append("the runs have different sampling seeds: the differences are paired by prompt, not by noise")
    return tuple(notes)
