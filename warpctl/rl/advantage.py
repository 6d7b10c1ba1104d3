"""Baselines: what is subtracted from the rewards to make the gradient less noisy. The paper does not name one.

    NoBaseline     advantage_i = r_i                                     Algorithm 1, line 8, to the letter
    BatchMean      advantage_i = r_i - mean of the batch                 (the default)
    LeaveOneOut    advantage_i = r_i - mean of the other completions of the same prompt (RLOO, arXiv 2402.14740)

NoBaseline and LeaveOneOut leave the gradient's expectation as it is; BatchMean scales it by (B - 1) / B, because a
completion's own reward is part of the mean.

Shape suffix: B completions, the K completions of a prompt next to each other.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from warpctl.spec.training import Baseline


def no_baseline(reward_B: Tensor, _num_generations: int) -> Tensor:
    """The reward itself."""
    return reward_B


def batch_mean(reward_B: Tensor, _num_generations: int) -> Tensor:
    """Reward minus the batch's mean."""
    return reward_B - reward_B.mean()


def leave_one_out(reward_B: Tensor, num_generations: int) -> Tensor:
    """Reward minus the mean of the prompt's other completions: K / (K - 1) (r_i - mean of the K)."""
    if num_generations < 2 or len(reward_B) % num_generations:
        raise ValueError(
            f"leave-one-out needs groups of at least 2: {len(reward_B)} rewards, {num_generations} a prompt"
        )
    groups = reward_B.view(-1, num_generations)
    others = (groups.sum(dim=1, keepdim=True) - groups) / (num_generations - 1)
    return (groups - others).reshape(-1)


ADVANTAGES: dict[Baseline, Callable[[Tensor, int], Tensor]] = {
    Baseline.NO_BASELINE: no_baseline,
    Baseline.BATCH_MEAN: batch_mean,
    Baseline.LEAVE_ONE_OUT: leave_one_out,
}
"""By the spec's word: (reward_B, completions per prompt) -> advantage_B."""
