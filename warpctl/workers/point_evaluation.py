"""Evaluate one policy on the line from SFT to a source: set its weights, sample, score, measure KL.

Three sets of weights are in memory: SFT's, the source's, and the point's own, which are overwritten for every point.
The model that samples and the one that is the origin of the KL axis have one architecture, that of the SFT policy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from warpctl.errors import InputError, NumericsError
from warpctl.reports.evaluation import EvaluatedPoint
from warpctl.rl.logprobs import completion_logits
from warpctl.rl.randomness import derived_seed
from warpctl.rl.sampling import Completions, sample
from warpctl.spec.stage_input import EvaluateTask
from warpctl.workers.completion_kl import kl_of_completions
from warpctl.workers.policies import Vocabulary
from warpctl.workers.prompt_set import PromptSet
from warpctl.workers.rewards import Scorer

BATCH = 64
"""Completions sampled together. It decides which noise a completion gets: part of algorithm version 1, not a setting."""
KEPT_NUMBERS = 1 << 26
"""Decoding keeps its logits while they are at most this many (256 MiB): else the policy reads its completions again."""
FORWARD_NUMBERS = 1 << 24
"""Logits of one forward pass over completions (64 MiB), one completion at least."""


@dataclass(frozen=True)
class Judged:
    """One batch: text, KL and length of each completion."""

    texts: list[str]
    kl_k1: list[float]
    kl_rb: list[float]
    lengths: list[int]
    truncated: list[bool]


class Evaluator:
    """Holds SFT, the current source and the prompts; evaluates one rate at a time."""

    def __init__(
        self,
        task: EvaluateTask,
        sft: Any,
        *,
        vocabulary: Vocabulary,
        prompts: PromptSet,
        scorers: Mapping[str, Scorer],
        arithmetic: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """`sft`: a causal language model with float32 weights. `scorers`: every reward of the task by name, held out or not.
        `arithmetic` makes the context of forward passes (autocast, or nothing).
        """
        self.task = task
        self.vocabulary = vocabulary
        self.prompts = prompts
        self.scorers = scorers
        self._sft = sft.eval().requires_grad_(requires_grad=False)
        self._policy = copy.deepcopy(self._sft)
        self._source: Mapping[str, Tensor] = {}
        self._arithmetic = arithmetic

    def load_source(self, source: Any) -> None:
        """Take the weights of this model as the far end of the line (rate 1); they may stay on the CPU."""
        weights = dict(source.named_parameters())
        expected = {name: tuple(parameter.shape) for name, parameter in self._sft.named_parameters()}
        if {name: tuple(weight.shape) for name, weight in weights.items()} != expected:
            raise InputError(
                "a policy to evaluate has other weights than the SFT policy",
                hint="all policies of a run share one architecture; evaluate policies of this run only",
            )
        self._source = weights

    @torch.no_grad()
    def set_weights(self, liti_rate: Decimal) -> None:
        """weights = (1 - rate) SFT + rate source, in float32; exactly SFT at 0 and exactly the source at 1."""
        rate = float(liti_rate)
        for name, parameter in self._policy.named_parameters():
            sft = self._sft.get_parameter(name)
            if rate == 0.0:
                parameter.copy_(sft)
            elif rate == 1.0:
                parameter.copy_(self._source[name])
            else:
                source = self._source[name].to(device=sft.device, dtype=torch.float32)
                parameter.copy_(sft.float() * (1.0 - rate) + source * rate)

    def evaluate(
        self, liti_rate: Decimal, identity: Mapping[str, Any], *, pause: Callable[[], None] = lambda: None
    ) -> EvaluatedPoint:
        """The point at `liti_rate` (0: SFT itself). `pause` is called between batches and may raise to stop."""
        self.set_weights(liti_rate)
        count, generations = len(self.prompts.texts), self.task.num_generations
        rows = [prompt for prompt in range(count) for _ in range(generations)]
        batches: list[Judged] = []
        with torch.no_grad(), self._arithmetic():
            for number, start in enumerate(range(0, len(rows), BATCH)):
                pause()
                batches.append(self._judge(number, rows[start : start + BATCH], is_sft=liti_rate == 0))
        completions = tuple(text for batch in batches for text in batch.texts)
        asked = [self.prompts.texts[row] for row in rows]
        scores = {name: tuple(scorer(asked, completions)) for name, scorer in self.scorers.items()}
        weights = {reward.name: float(reward.weight) for reward in self.task.rewards}
        point = EvaluatedPoint(
            identity=identity,
            prompts=self.prompts.texts,
            num_generations=generations,
            completions=completions,
            kl_k1=tuple(value for batch in batches for value in batch.kl_k1),
            kl_rb=tuple(value for batch in batches for value in batch.kl_rb),
            reward=tuple(
                math.fsum(weight * scores[name][row] for name, weight in weights.items()) for row in range(len(rows))
            ),
            scores={name: scores[name] for name in weights},
            held_out={reward.name: scores[reward.name] for reward in self.task.held_out_rewards},
            lengths=tuple(length for batch in batches for length in batch.lengths),
            truncated=tuple(cut for batch in batches for cut in batch.truncated),
        )
        if not all(map(math.isfinite, (*point.kl_k1, *point.kl_rb))):
            raise NumericsError(
                f"the KL to the SFT policy is not finite at LITI rate {liti_rate}",
                hint="the weights hold NaN or Inf, or give logits that overflow; look at the RL runs' metrics",
            )
        return point

    def _judge(self, number: int, rows: Sequence[int], *, is_sft: bool) -> Judged:
        """Sample one batch and measure it. The batch's number seeds it: the same noise for every point."""
        task, vocabulary = self.task, self.vocabulary
        generator = torch.Generator(device=self._policy.device).manual_seed(derived_seed(task.seed, "evaluate", number))
        prompts = [list(self.prompts.tokens[row]) for row in rows]
        size = self._policy.config.get_text_config().vocab_size
        drawn = sample(
            self._policy,
            prompts,
            sampling=task.training.sampling,
            end_tokens=vocabulary.end_tokens,
            pad_token=vocabulary.pad_token,
            generator=generator,
            keep_logits=not is_sft and len(rows) * task.training.sampling.max_new_tokens * size <= KEPT_NUMBERS,
        )
        # SFT is no distance from itself: measuring it would give the rounding of two ways to the same logits.
        kl_k1, kl_rb = ([0.0] * len(rows),) * 2 if is_sft else self._kl(drawn, size)
        return Judged(
            texts=[vocabulary.decode(tokens) for tokens in drawn.tokens],
            kl_k1=kl_k1,
            kl_rb=kl_rb,
            lengths=drawn.lengths,
            truncated=[not is_complete for is_complete in drawn.is_complete],
        )

    def _kl(self, drawn: Completions, vocabulary_size: int) -> tuple[list[float], list[float]]:
        """(k1, Rao-Blackwellised) of each completion, a few completions at a time."""
        micro_batch = max(1, FORWARD_NUMBERS // (max(drawn.lengths) * vocabulary_size))
        kl_k1: list[float] = []
        kl_rb: list[float] = []
        pad_token = self.vocabulary.pad_token
        forward = (drawn.prompts, drawn.tokens)
        parts = completion_logits(self._sft, *forward, pad_token=pad_token, micro_batch=micro_batch)
        for sft, policy_BTV in zip(parts, self._policy_logits(drawn, micro_batch), strict=True):
            k1_B, rb_B = kl_of_completions(
                policy_BTV,
                sft.logits_BTV,
                sft.tokens_BT,
                sft.in_completion_BT,
                temperature=float(self.task.training.sampling.temperature),
            )
            kl_k1 += k1_B.tolist()
            kl_rb += rb_B.tolist()
        return kl_k1, kl_rb

    def _policy_logits(self, drawn: Completions, micro_batch: int) -> Iterator[Tensor]:
        """(B, T, V) of a few completions at a time: those that decoding kept, else from another forward pass."""
        if drawn.logits is not None:
            for start in range(0, len(drawn.logits), micro_batch):
                yield pad_sequence(drawn.logits[start : start + micro_batch], batch_first=True)
            return
        pad_token = self.vocabulary.pad_token
        for part in completion_logits(
            self._policy, drawn.prompts, drawn.tokens, pad_token=pad_token, micro_batch=micro_batch
        ):
            yield part.logits_BTV
