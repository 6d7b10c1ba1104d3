"""Evaluation along an RL run: KL to SFT and reward on fixed prompts with fixed randomness, so that it changes nothing.

It draws from a generator of its own, the same at every step, for every member: points of a trajectory are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from warpctl.rl.logprobs import completion_logits
from warpctl.rl.randomness import derived_seed
from warpctl.rl.sampling import sample
from warpctl.spec.training import Sampling
from warpctl.workers.completion_kl import kl_of_completions
from warpctl.workers.point_evaluation import FORWARD_NUMBERS
from warpctl.workers.policies import Vocabulary
from warpctl.workers.prompt_set import PromptSet

BATCH = 64
"""Completions sampled and measured together."""


@dataclass(frozen=True)
class TrajectoryEvaluation:
    """What every evaluation of one RL run has in common."""

    prompts: PromptSet
    num_prompts: int
    seed: int
    sampling: Sampling
    vocabulary: Vocabulary
    score: Callable[[Sequence[str], Sequence[str]], Tensor]
    """Weighted score of completions (B,), not shaped."""

    @torch.no_grad()
    def measure(self, policy: Any, sft: Any) -> dict[str, float]:
        """The fields of one point: mean KL to SFT (exact per token, in nats), reward and length."""
        kl_rb: list[float] = []
        scores: list[float] = []
        lengths: list[int] = []
        for start in range(0, min(self.num_prompts, len(self.prompts)), BATCH):
            rows = range(start, min(start + BATCH, self.num_prompts, len(self.prompts)))
            generator = torch.Generator(device=policy.device)
            drawn = sample(
                policy,
                [self.prompts.tokens[row] for row in rows],
                sampling=self.sampling,
                end_tokens=self.vocabulary.end_tokens,
                pad_token=self.vocabulary.pad_token,
                generator=generator.manual_seed(derived_seed(self.seed, "trajectory", start)),
            )
            texts = [self.vocabulary.decode(tokens) for tokens in drawn.tokens]
            scores += self.score([self.prompts.texts[row] for row in rows], texts).tolist()
            lengths += drawn.lengths
            # As few rows at once as keep the logits of a large vocabulary small.
            micro_batch = max(1, FORWARD_NUMBERS // (max(drawn.lengths) * policy.config.get_text_config().vocab_size))
            forward = {"pad_token": self.vocabulary.pad_token, "micro_batch": micro_batch}
            policy_parts = completion_logits(policy, drawn.prompts, drawn.tokens, **forward)
            sft_parts = completion_logits(sft, drawn.prompts, drawn.tokens, **forward)
            for policy_part, sft_part in zip(policy_parts, sft_parts, strict=True):
                _, rb_B = kl_of_completions(
                    policy_part.logits_BTV,
                    sft_part.logits_BTV,
                    sft_part.tokens_BT,
                    sft_part.in_completion_BT,
                    temperature=float(self.sampling.temperature),
                )
                kl_rb += rb_B.tolist()
        return {
            "evaluation/kl": sum(kl_rb) / len(kl_rb),
            "evaluation/reward": sum(scores) / len(scores),
            "evaluation/length": sum(lengths) / len(lengths),
        }
