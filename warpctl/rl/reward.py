"""From the scores of completions to their rewards (Algorithm 1, line 7).

    score_B    the weighted sum of what the reward models say about each completion
    shaped_B   clip(score) - length_penalty * tokens - missing_end_penalty where the end is missing
    kl_B       log pi(y|x) - log anchor(y|x), summed over the whole completion      (an estimate of the KL, in nats)
    reward_B   shaped - beta * kl

The KL term sits inside the reward, as one number for the whole completion; it is not a per-token loss, and no gradient
goes through it. Scores are what reward models say, rewards are what is optimised.

Shape suffixes: B completions, T completion tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from warpctl.rl.logprobs import sequence_logprobs
from warpctl.spec.training import RewardShaping


def weighted_score(scores: Mapping[str, Sequence[float]], weights: Mapping[str, float]) -> Tensor:
    """score_B, float32: the sum over rewards of weight times score, added in the order of `weights`."""
    total_B = sum(weight * torch.tensor(list(scores[name]), dtype=torch.float64) for name, weight in weights.items())
    return torch.as_tensor(total_B).float()


def shaped_score(score_B: Tensor, length_B: Tensor, is_complete_B: Tensor, *, shaping: RewardShaping) -> Tensor:
    """shaped_B. Lengths are in tokens, the end included; is_complete is True where the completion has its end."""
    shaped_B = score_B
    if shaping.clip is not None:
        shaped_B = shaped_B.clamp(min=-float(shaping.clip), max=float(shaping.clip))
    shaped_B = shaped_B - float(shaping.length_penalty) * length_B
    return shaped_B - float(shaping.missing_end_penalty) * (~is_complete_B).to(shaped_B.dtype)


def kl_estimate(logprobs_BT: Tensor, other_logprobs_BT: Tensor, in_completion_BT: Tensor) -> Tensor:
    """kl_B: the log-ratio of whole completions, log pi(y|x) - log other(y|x); may be negative for one completion."""
    return sequence_logprobs(logprobs_BT - other_logprobs_BT, in_completion_BT)


def kl_reward(shaped_B: Tensor, kl_B: Tensor, *, kl_coefficient: float) -> Tensor:
    """reward_B = shaped_B - beta kl_B: r_beta(y) of the paper."""
    return shaped_B - kl_coefficient * kl_B
