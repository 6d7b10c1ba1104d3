"""Evaluate one policy on the line from SFT to a source: set its weights, sample, score, measure KL.

Two sets of weights are in memory: SFT's, and the point's own, which are overwritten for every point. A source is read into the
point's own; only one that several points need is kept beside them, on the CPU.
The model that samples and the one that is the origin of the KL axis have one architecture, that of the SFT policy.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from warpctl.errors import NumericsError
from warpctl.reports.evaluation import EvaluatedPoint
from warpctl.rl.logprobs import forward_completions
from warpctl.rl.randomness import derived_seed
from warpctl.rl.sampling import Completions, sample
from warpctl.spec.stage_input import EvaluateTask
from warpctl.workers.completion_kl import kl_of_completions
from warpctl.workers.policies import Vocabulary
from warpctl.workers.prompt_set import PromptSet
from warpctl.workers.rewards import Scorer

BATCH_TOKENS = 1 << 13
BATCH_ROWS = (64, 256)
"""Completions sampled together: as many as may have `BATCH_TOKENS` tokens, within these bounds (short completions are cheaper
in large batches, long ones need memory). It decides which noise a completion gets: part of algorithm version 1, no setting.
"""
KEPT_NUMBERS = 1 << 26
"""Decoding keeps its logits while they are at most this many (256 MiB): else the policy reads its completions again."""
FORWARD_NUMBERS = 1 << 24
"""Logits of one forward pass over completions (64 MiB), one completion at least."""
FORWARD_ROWS = 64
"""Completions of one forward pass at most: more save no time, and their padding costs some."""

Source = Callable[[Mapping[str, Tensor]], None]
"""Overwrites float32 tensors, on any device, with the source's weights of these names; InputError when it has others."""


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
        self._policy = _without_weights(self._sft)
        self._source: Mapping[str, Tensor] = {}
        self._is_kept = False
        self._arithmetic = arithmetic

    def load_source(self, read: Source, *, num_points: int) -> None:
        """Read the far end of the line (rate 1), once, for this many points; that of the points before is given up."""
        self._source = {}
        self._is_kept = num_points > 1
        source: Mapping[str, Tensor] = dict(self._policy.named_parameters())
        if self._is_kept:
            source = {name: torch.empty(weight.shape, dtype=weight.dtype) for name, weight in source.items()}
        read(source)
        self._source = source

    @torch.no_grad()
    def set_weights(self, liti_rate: Decimal) -> None:
        """weights = (1 - rate) SFT + rate source, in float32; exactly SFT at 0 and exactly the source at 1."""
        rate, source = float(liti_rate), self._source
        if not self._is_kept:
            self._source = {}  # what was read into the policy is about to be the source no longer
        for name, weight in self._policy.named_parameters():
            sft = self._sft.get_parameter(name)
            if rate == 0.0:
                weight.copy_(sft)
            elif rate == 1.0:
                weight.copy_(source[name])  # nothing to do where they are the same
            else:
                torch.lerp(sft, source[name].to(sft.device), rate, out=weight)

    def evaluate(
        self, liti_rate: Decimal, identity: Mapping[str, Any], *, pause: Callable[[], None] = lambda: None
    ) -> EvaluatedPoint:
        """The point at `liti_rate` (0: SFT itself). `pause` is called between batches and may raise to stop."""
        self.set_weights(liti_rate)
        count, generations = len(self.prompts.texts), self.task.num_generations
        rows = [prompt for prompt in range(count) for _ in range(generations)]
        drawn: list[Completions] = []
        kls: list[tuple[float, float]] = []
        with torch.no_grad(), self._arithmetic():
            for batches in self._windows(rows, is_sft=liti_rate == 0, pause=pause):
                window = joined(batches)
                # SFT is no distance from itself: measuring it would give the rounding of two ways to the same logits.
                kls += [(0.0, 0.0)] * len(window.tokens) if liti_rate == 0 else self._kl(window)
                drawn.append(dataclasses.replace(window, logits=None))
        said = joined(drawn)
        completions = tuple(self.vocabulary.decode(tokens) for tokens in said.tokens)
        asked = [self.prompts.texts[row] for row in rows]
        scores = {name: tuple(scorer(asked, completions)) for name, scorer in self.scorers.items()}
        weights = {reward.name: float(reward.weight) for reward in self.task.rewards}
        point = EvaluatedPoint(
            identity=identity,
            prompts=self.prompts.texts,
            num_generations=generations,
            completions=completions,
            kl_k1=tuple(k1 for k1, _ in kls),
            kl_rb=tuple(rb for _, rb in kls),
            reward=tuple(
                math.fsum(weight * scores[name][row] for name, weight in weights.items()) for row in range(len(rows))
            ),
            scores={name: scores[name] for name in weights},
            held_out={reward.name: scores[reward.name] for reward in self.task.held_out_rewards},
            lengths=tuple(said.lengths),
            truncated=tuple(not is_complete for is_complete in said.is_complete),
        )
        if not all(map(math.isfinite, (*point.kl_k1, *point.kl_rb))):
            raise NumericsError(
                f"the KL to the SFT policy is not finite at LITI rate {liti_rate}",
                hint="the weights hold NaN or Inf, or give logits that overflow; look at the RL runs' metrics",
            )
        return point

    def _windows(self, rows: Sequence[int], *, is_sft: bool, pause: Callable[[], None]) -> Iterator[list[Completions]]:
        """Sample batch by batch; hand over as many batches together as may keep their logits, at least one."""
        numbers_of_row = self.task.training.sampling.max_new_tokens * self._vocabulary_size
        batch = batch_rows(self.task.training.sampling.max_new_tokens)
        keep_logits = not is_sft and batch * numbers_of_row <= KEPT_NUMBERS
        window_rows = max(batch, KEPT_NUMBERS // numbers_of_row // batch * batch)
        batches: list[Completions] = []
        for number, start in enumerate(range(0, len(rows), batch)):
            pause()
            batches.append(self._sample(number, rows[start : start + batch], keep_logits=keep_logits))
            if len(batches) * batch >= window_rows:
                yield batches
                batches = []
        if batches:
            yield batches

    def _sample(self, number: int, rows: Sequence[int], *, keep_logits: bool) -> Completions:
        """One batch. Its number seeds it: the same noise for every point."""
        seed = derived_seed(self.task.seed, "evaluate", number)
        return sample(
            self._policy,
            [list(self.prompts.tokens[row]) for row in rows],
            sampling=self.task.training.sampling,
            end_tokens=self.vocabulary.end_tokens,
            pad_token=self.vocabulary.pad_token,
            generator=torch.Generator(device=self._policy.device).manual_seed(seed),
            keep_logits=keep_logits,
        )

    @property
    def _vocabulary_size(self) -> int:
        return int(self._policy.config.get_text_config().vocab_size)

    def _kl(self, drawn: Completions) -> list[tuple[float, float]]:
        """(k1, Rao-Blackwellised) of each completion. Those of like lengths are read together: padding costs as tokens do."""
        kls = [(0.0, 0.0)] * len(drawn.tokens)
        order = sorted(range(len(kls)), key=lambda row: (len(drawn.tokens[row]), len(drawn.prompts[row])))
        while order:
            # the longest first: a forward pass over them needs most memory, and the rest fits where it did
            longest = len(drawn.tokens[order[-1]])
            size = min(FORWARD_ROWS, max(1, FORWARD_NUMBERS // (longest * self._vocabulary_size)))
            rows, order = order[-size:], order[:-size]
            for row, kl in zip(rows, self._kl_of(drawn, rows), strict=True):
                kls[row] = kl
        return kls

    def _kl_of(self, drawn: Completions, rows: Sequence[int]) -> list[tuple[float, float]]:
        """The same for some of the completions, in one forward pass of SFT and, without kept logits, one of the policy."""
        texts = [drawn.prompts[row] for row in rows], [drawn.tokens[row] for row in rows]
        sft = forward_completions(self._sft, *texts, pad_token=self.vocabulary.pad_token)
        if drawn.logits is not None:
            policy_BTV = pad_sequence([drawn.logits[row] for row in rows], batch_first=True)
        else:
            policy_BTV = forward_completions(self._policy, *texts, pad_token=self.vocabulary.pad_token).logits_BTV
        k1_B, rb_B = kl_of_completions(
            policy_BTV,
            sft.logits_BTV,
            sft.tokens_BT,
            sft.in_completion_BT,
            temperature=float(self.task.training.sampling.temperature),
        )
        return list(zip(k1_B.tolist(), rb_B.tolist(), strict=True))


def _without_weights(model: Any) -> Any:
    """A copy whose parameters have memory of their own, and no values yet."""
    empty = {
        id(weight): torch.nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype, device=weight.device), False)
        for weight in model.parameters()
    }
    return copy.deepcopy(model, empty)


def batch_rows(max_new_tokens: int) -> int:
    """Completions sampled together: a function of the spec alone, so that every machine draws the same noise."""
    fewest, most = BATCH_ROWS
    return min(most, max(fewest, BATCH_TOKENS // max_new_tokens))


def joined(parts: Sequence[Completions]) -> Completions:
    """Batches as one, in order; logits where all have them."""
    logits = [part.logits for part in parts if part.logits is not None]
    return Completions(
        prompts=[row for part in parts for row in part.prompts],
        tokens=[row for part in parts for row in part.tokens],
        logprobs=[row for part in parts for row in part.logprobs],
        is_complete=[row for part in parts for row in part.is_complete],
        logits=[row for part in logits for row in part] if len(logits) == len(parts) else None,
    )
