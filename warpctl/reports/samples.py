"""Completions side by side, never chosen by hand: prompts drawn at random with a fixed seed, and those of worst regret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from warpctl.reports.estimate import REWARD, Evaluated
from warpctl.reports.evaluation import EvaluatedPoint
from warpctl.reports.table import point_label

NUM_SAMPLES = 6
NUM_REGRETS = 3
MAX_CHARACTERS = 1200


@dataclass(frozen=True)
class Completion:
    """What one policy said."""

    policy: str
    text: str
    is_cut: bool
    """The text was longer than the page shows."""
    scores: Mapping[str, float]
    """By reward: `REWARD` (trained-on), then the held-out ones."""
    kl: float


@dataclass(frozen=True)
class Sample:
    """One prompt and what each policy said to it."""

    prompt: str
    completions: tuple[Completion, ...]
    regret: float | None = None
    """By how much the judge prefers SFT's completion to the chosen policy's; None for a prompt drawn at random."""


def draw_samples(policies: Sequence[Evaluated], *, seed: int = 0, count: int = NUM_SAMPLES) -> tuple[Sample, ...]:
    """The first completion of each policy for `count` random prompts, the same for all. The policies share their prompts."""
    if not policies:
        return ()
    prompts = policies[0][1].prompts
    generator = np.random.default_rng(seed)
    drawn = generator.choice(len(prompts), size=min(count, len(prompts)), replace=False)
    return tuple(_sample(policies, place) for place in sorted(int(number) for number in drawn))


def worst_regrets(
    policies: Sequence[Evaluated],
    *,
    sft: EvaluatedPoint,
    chosen: EvaluatedPoint,
    judge: str,
    count: int = NUM_REGRETS,
) -> tuple[Sample, ...]:
    """The prompts where the judge's score of `chosen` falls farthest below SFT's, worst first; none where it never falls.

    First completions only: they are what the page shows. `judge`: a held-out reward, or `REWARD`.
    """
    if not (_has(sft, judge) and _has(chosen, judge)):
        return ()
    regrets = _first(sft, judge) - _first(chosen, judge)
    worst = [int(place) for place in np.argsort(-regrets, kind="stable")[:count] if regrets[place] > 0]
    return tuple(_sample(policies, place, regret=float(regrets[place])) for place in worst)


def _has(point: EvaluatedPoint, judge: str) -> bool:
    return judge == REWARD or judge in point.held_out


def _first(point: EvaluatedPoint, judge: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values = point.reward if judge == REWARD else point.held_out[judge]
    return np.asarray(values[:: point.num_generations], dtype=np.float64)


def _sample(policies: Sequence[Evaluated], place: int, *, regret: float | None = None) -> Sample:
    return Sample(
        prompt=policies[0][1].prompts[place][:MAX_CHARACTERS],
        completions=tuple(_completion(policy, place * policy[1].num_generations) for policy in policies),
        regret=regret,
    )


def _completion(policy: Evaluated, place: int) -> Completion:
    named, point = policy
    text = point.completions[place]
    where = f", iteration {named.iteration}" if named.iteration else ""
    return Completion(
        policy=f"{point_label(named)}{where}",
        text=text[:MAX_CHARACTERS],
        is_cut=len(text) > MAX_CHARACTERS,
        scores={REWARD: point.reward[place], **{name: values[place] for name, values in point.held_out.items()}},
        kl=point.kl_rb[place],
    )
