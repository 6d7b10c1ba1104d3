"""The front of a run with its intervals: means over prompts, hypervolume, reward at fixed KL, all paired by prompt.

The run's front is taken over its own points (SFT, members, LITI rates of all iterations); controls are compared with it,
not part of it. An iteration's front is what it would put out: SFT and its LITI rates.
Shapes: P points, Q quantities of each, N prompts, R replicates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from warpctl.errors import InputError
from warpctl.reports.bootstrap import NUM_REPLICATES, interval, replicate_means
from warpctl.reports.evaluation import SFT_POINT, EvaluatedPoint, NamedPoint
from warpctl.reports.front import hypervolume, non_dominated, reward_at_kl
from warpctl.reports.self_similarity import self_similarity

Floats = NDArray[np.float64]

REWARD = "reward"
LITI_PREFIX = "liti/"
FIXED_KLS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
"""Nats at which the reward is read off; fixed, so that runs can be compared."""
MIN_REACHED = 0.95
"""Share of replicates whose front reaches a KL before a reward is given for it."""


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts (or a function of such means) with its bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class FrontPoint:
    """One evaluated policy."""

    named: NamedPoint
    kl: Estimate
    """Rao-Blackwellised KL to the SFT policy, nats per completion."""
    kl_k1: Estimate
    """The plain estimate of the same."""
    reward: Estimate
    """Weighted sum of the trained-on rewards."""
    scores: Mapping[str, Estimate]
    held_out: Mapping[str, Estimate]
    length: Estimate
    """Tokens per completion."""
    truncated: Estimate
    """Share of completions cut at the token limit."""
    self_similarity: Estimate
    """Of its completions for different prompts, 0 to 1 (self_similarity.py)."""
    is_on_front: bool

    def measure(self, name: str) -> Estimate | None:
        """The trained-on reward for `REWARD`, else the held-out reward of that name, if it was evaluated."""
        return self.reward if name == REWARD else self.held_out.get(name)


@dataclass(frozen=True)
class IterationFront:
    """What one iteration's SFT-to-merged line is worth, by measure."""

    iteration: int
    hypervolume: Mapping[str, Estimate]
    reward_at_kl: Mapping[str, Mapping[float, Estimate]]
    """By measure, then by KL; only the KLs that the front reaches."""


@dataclass(frozen=True)
class Front:
    """Everything that tables and charts show."""

    points: tuple[FrontPoint, ...]
    iterations: tuple[IterationFront, ...]
    measures: tuple[str, ...]
    """`REWARD` and the held-out rewards."""
    confidence_level: float
    max_kl: float
    """KL of the hypervolume's corner; its reward is the SFT policy's."""
    num_prompts: int
    num_generations: int


Evaluated = tuple[NamedPoint, EvaluatedPoint]


def distinct(evaluated: Sequence[Evaluated]) -> tuple[Evaluated, ...]:
    """Each point once, in order: SFT first (as iteration 0, every iteration evaluates it), then by iteration, controls last."""
    kept: dict[tuple[str, int, str], Evaluated] = {}
    for named, point in evaluated:
        at = replace(named, iteration=0, control="") if named.name == SFT_POINT else named
        kept.setdefault((at.control, at.iteration, at.name), (at, point))
    return tuple(sorted(kept.values(), key=lambda pair: _order(pair[0])))


def _order(named: NamedPoint) -> tuple[bool, str, int, bool, float, str]:
    is_member = not named.name.startswith(LITI_PREFIX)
    return bool(named.control), named.control, named.iteration, not is_member, float(named.liti_rate), named.name


def estimate_front(
    evaluated: Sequence[Evaluated],
    *,
    confidence_level: float,
    max_kl: float,
    seed: int = 0,
    num_replicates: int = NUM_REPLICATES,
) -> Front:
    """Means and paired bootstrap intervals of all points, and the fronts that they form.

    `seed` is that of the resampling: the same points give the same numbers. Raises InputError without any point, or when
    points were evaluated on different prompts (they could not be paired).
    """
    pairs = distinct(evaluated)
    if not pairs:
        raise InputError("there is no evaluated point yet", hint="the report needs at least one finished evaluation")
    first = pairs[0][1]
    if any((point.prompts, point.num_generations) != (first.prompts, first.num_generations) for _, point in pairs):
        raise InputError("the points were not evaluated on the same prompts", hint="evaluate them with one spec")
    table = _Resampled.of(
        [_quantities(point) for _, point in pairs], level=confidence_level, seed=seed, num_replicates=num_replicates
    )
    names = [named for named, _ in pairs]
    on_front = _on_front(table, [p for p, named in enumerate(names) if not named.control])
    measures = (REWARD, *dict.fromkeys(name for _, point in pairs for name in point.held_out))
    iterations = sorted({named.iteration for named in names if named.iteration and not named.control})
    lines = {i: [p for p, named in enumerate(names) if is_on_line(named, i)] for i in iterations}
    return Front(
        points=tuple(
            FrontPoint(
                named=named,
                kl=table.estimate(p, "kl"),
                kl_k1=table.estimate(p, "kl_k1"),
                reward=table.estimate(p, REWARD),
                scores={name: table.estimate(p, f"scores/{name}") for name in point.scores},
                held_out={name: table.estimate(p, f"held_out/{name}") for name in point.held_out},
                length=table.estimate(p, "length"),
                truncated=table.estimate(p, "truncated"),
                self_similarity=table.estimate(p, "self_similarity"),
                is_on_front=p in on_front,
            )
            for p, (named, point) in enumerate(pairs)
        ),
        # Half a run: without SFT or without a LITI rate there is no line yet.
        iterations=tuple(
            _iteration_front(table, iteration, line, measures, max_kl)
            for iteration, line in lines.items()
            if len(line) > 1 and names[line[0]].name == SFT_POINT
        ),
        measures=measures,
        confidence_level=confidence_level,
        max_kl=max_kl,
        num_prompts=len(first.prompts),
        num_generations=first.num_generations,
    )


def _quantities(point: EvaluatedPoint) -> dict[str, Floats]:
    """Per prompt (N): everything that is averaged."""
    columns = {
        "kl": point.kl_rb,
        "kl_k1": point.kl_k1,
        REWARD: point.reward,
        "length": point.lengths,
        "truncated": point.truncated,
        **{f"scores/{name}": values for name, values in point.scores.items()},
        **{f"held_out/{name}": values for name, values in point.held_out.items()},
    }
    return {
        **{name: point.per_prompt(values) for name, values in columns.items()},
        "self_similarity": self_similarity(point.completions[:: point.num_generations]),
    }


def is_on_line(named: NamedPoint, iteration: int) -> bool:
    """Whether a point is SFT or a LITI rate of this iteration: the line that the iteration would put out."""
    is_liti = named.iteration == iteration and named.name.startswith(LITI_PREFIX)
    return not named.control and (named.name == SFT_POINT or is_liti)


@dataclass(frozen=True)
class _Resampled:
    """Every quantity of every point: its mean, and its mean in each resampling of the prompts."""

    means: Floats
    replicates: Floats
    level: float
    rows: Mapping[tuple[int, str], int]

    @classmethod
    def of(
        cls, quantities: Sequence[Mapping[str, Floats]], *, level: float, seed: int, num_replicates: int
    ) -> _Resampled:
        values_KN = np.stack([values_N for point in quantities for values_N in point.values()])
        keys = [(p, name) for p, point in enumerate(quantities) for name in point]
        generator = np.random.default_rng(seed)
        replicates_KR = replicate_means(values_KN, generator=generator, num_replicates=num_replicates)
        return cls(values_KN.mean(axis=1), replicates_KR, level, {key: k for k, key in enumerate(keys)})

    def estimate(self, point: int, quantity: str) -> Estimate:
        k = self.rows[point, quantity]
        return self.bounded(float(self.means[k]), self.replicates[k])

    def bounded(self, mean: float, replicates_R: Floats) -> Estimate:
        low, high = interval(replicates_R, level=self.level)
        return Estimate(mean, float(low), float(high))

    def columns(self, points: Sequence[int], quantity: str) -> tuple[Floats, Floats]:
        """One quantity of several points: as estimated (P,), and in each replicate (R, P)."""
        rows = [self.rows[p, quantity] for p in points]
        return self.means[rows], self.replicates[rows].T


def _on_front(table: _Resampled, points: Sequence[int]) -> frozenset[int]:
    if not points:
        return frozenset()
    flags = non_dominated(table.columns(points, "kl")[0], table.columns(points, REWARD)[0])
    return frozenset(p for p, is_on_front in zip(points, flags, strict=True) if is_on_front)


def _iteration_front(
    table: _Resampled, iteration: int, line: Sequence[int], measures: Sequence[str], max_kl: float
) -> IterationFront:
    """`line` starts with the SFT point, whose reward (in each replicate its own) is the corner of the hypervolume."""
    areas: dict[str, Estimate] = {}
    rewards: dict[str, dict[float, Estimate]] = {}
    kl_P, kl_RP = table.columns(line, "kl")
    for measure in measures:
        quantity = measure if measure == REWARD else f"held_out/{measure}"
        if any((p, quantity) not in table.rows for p in line):
            continue  # a held-out reward that some of these points were not judged by
        reward_P, reward_RP = table.columns(line, quantity)
        area = hypervolume(kl_P, reward_P, max_kl=max_kl, reference_reward=reward_P[0])
        area_R = hypervolume(kl_RP, reward_RP, max_kl=max_kl, reference_reward=reward_RP[:, 0])
        areas[measure] = table.bounded(float(area), area_R)
        rewards[measure] = {}
        for at in FIXED_KLS:
            at_R = reward_at_kl(kl_RP, reward_RP, at)
            is_reached_R = np.isfinite(at_R)
            mean = float(reward_at_kl(kl_P, reward_P, at))
            if np.isfinite(mean) and is_reached_R.mean() >= MIN_REACHED:
                rewards[measure][at] = table.bounded(mean, at_R[is_reached_R])
    return IterationFront(iteration, areas, rewards)
