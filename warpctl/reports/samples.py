"""Completions side by side: prompts drawn at random with a fixed seed, never chosen by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from warpctl.reports.estimate import Evaluated
from warpctl.reports.table import point_label

NUM_SAMPLES = 6
MAX_CHARACTERS = 1200


@dataclass(frozen=True)
class Completion:
    """What one policy said."""

    policy: str
    text: str
    is_cut: bool
    """The text was longer than the page shows."""
    reward: float
    kl: float


@dataclass(frozen=True)
class Sample:
    """One prompt and what each policy said to it."""

    prompt: str
    completions: tuple[Completion, ...]


def draw_samples(policies: Sequence[Evaluated], *, seed: int = 0, count: int = NUM_SAMPLES) -> tuple[Sample, ...]:
    """The first completion of each policy for `count` random prompts, the same for all. The policies share their prompts."""
    if not policies:
        return ()
    prompts = policies[0][1].prompts
    generator = np.random.default_rng(seed)
    drawn = generator.choice(len(prompts), size=min(count, len(prompts)), replace=False)
    return tuple(
        Sample(
            prompt=prompts[place][:MAX_CHARACTERS],
            completions=tuple(_completion(policy, place * policy[1].num_generations) for policy in policies),
        )
        for place in sorted(int(number) for number in drawn)
    )


def _completion(policy: Evaluated, place: int) -> Completion:
    named, point = policy
    text = point.completions[place]
    where = f", iteration {named.iteration}" if named.iteration else ""
    return Completion(
        policy=f"{point_label(named)}{where}",
        text=text[:MAX_CHARACTERS],
        is_cut=len(text) > MAX_CHARACTERS,
        reward=point.reward[place],
        kl=point.kl_rb[place],
    )
