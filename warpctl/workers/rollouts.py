"""Rollouts of one step: completions sampled from the policy (Algorithm 1, line 6), then scored and rewarded (line 7).

Shape suffixes: B completions of the batch, T completion tokens. The completions of a prompt lie next to each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from warpctl.rl.logprobs import micro_batched_logprobs, padded_logprobs
from warpctl.rl.randomness import derived_seed, prompt_rows
from warpctl.rl.reward import kl_estimate, kl_reward, shaped_score
from warpctl.rl.sampling import Completions, sample
from warpctl.spec.training import Precision
from warpctl.workers.rl_run import RlRun


@dataclass(frozen=True)
class Rollouts:
    """What the policy said at one step."""

    drawn: Completions
    """Tokens and their log-probabilities."""
    prompts: list[str]
    texts: list[str]
    """Prompts and completions as rewards read them."""
    length_B: Tensor
    """Tokens of each completion, the end included, float32."""


@dataclass(frozen=True)
class Rewards:
    """What is said of the rollouts; every tensor float32 on the CPU."""

    score_B: Tensor
    reward_B: Tensor
    """The shaped score minus beta times the KL to the anchor."""
    anchor_kl_B: Tensor
    """Log-ratio of whole completions to the anchor, in nats; zeros without an anchor."""
    sft_kl_B: Tensor
    """The same to the SFT policy."""
    policy_BT: Tensor
    """Log-probabilities of the tokens under the policy that they were sampled from; 0 outside the completions."""


def sample_rollouts(rl_run: RlRun, step: int) -> Rollouts:
    """Line 6: the step's prompts by its place in the endless random order, numGenerations completions of each."""
    training = rl_run.task.training
    num_prompts = training.batch_size // training.num_generations
    prompts_of_step = prompt_rows(
        len(rl_run.prompts),
        first=(step - 1) * num_prompts,
        count=num_prompts,
        seed=derived_seed(rl_run.seed, "prompts"),
    )
    rows = [row for row in prompts_of_step for _ in range(training.num_generations)]
    generator = torch.Generator(device=rl_run.policy.device)
    with rl_run.accelerator.autocast():
        drawn = sample(
            rl_run.policy,
            [rl_run.prompts.tokens[row] for row in rows],
            sampling=training.sampling,
            end_tokens=rl_run.vocabulary.end_tokens,
            pad_token=rl_run.vocabulary.pad_token,
            generator=generator.manual_seed(derived_seed(rl_run.seed, "sampling", step)),
        )
    return Rollouts(
        drawn=drawn,
        prompts=[rl_run.prompts.texts[row] for row in rows],
        texts=[rl_run.vocabulary.decode(tokens) for tokens in drawn.tokens],
        length_B=torch.tensor(drawn.lengths, dtype=torch.float32),
    )


def reward_rollouts(rl_run: RlRun, rollouts: Rollouts) -> Rewards:
    """Line 7: r_beta(y) = r(x, y) - beta log(pi(y|x) / pi_anchor(y|x)), the log-ratio of the whole completion."""
    training, drawn, length_B = rl_run.task.training, rollouts.drawn, rollouts.length_B
    score_B = rl_run.score(rollouts.prompts, rollouts.texts)
    shaped_B = shaped_score(score_B, length_B, torch.tensor(drawn.is_complete), shaping=training.reward_shaping)

    def logprobs_of(model: Any) -> Tensor:
        with rl_run.accelerator.autocast():
            return micro_batched_logprobs(
                model,
                drawn.prompts,
                drawn.tokens,
                temperature=float(training.sampling.temperature),
                pad_token=rl_run.vocabulary.pad_token,
                micro_batch=rl_run.micro_batch,
            ).cpu()

    # in float32 decoding and a forward pass agree to rounding; in bfloat16 only one pass compares with another
    is_exact = training.precision is Precision.FLOAT32
    policy_BT = padded_logprobs(drawn.logprobs, torch.device("cpu")) if is_exact else logprobs_of(rl_run.policy)
    in_completion_BT = torch.arange(policy_BT.shape[1])[None, :] < length_B[:, None]
    sft_BT = logprobs_of(rl_run.sft)
    sft_kl_B = kl_estimate(policy_BT, sft_BT, in_completion_BT)
    anchor_kl_B = torch.zeros_like(sft_kl_B)
    if rl_run.anchor is not None:
        anchor_BT = sft_BT if rl_run.anchor is rl_run.sft else logprobs_of(rl_run.anchor)
        anchor_kl_B = kl_estimate(policy_BT, anchor_BT, in_completion_BT)
    return Rewards(
        score_B=score_B,
        reward_B=kl_reward(shaped_B, anchor_kl_B, kl_coefficient=float(training.kl_coefficient)),
        anchor_kl_B=anchor_kl_B,
        sft_kl_B=sft_kl_B,
        policy_BT=policy_BT,
    )
