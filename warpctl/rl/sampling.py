"""Sampling completions from a causal language model (Algorithm 1, line 6).

Shape suffixes: B completions, S prompt tokens, T completion tokens, V vocabulary, A rows that are still alive.

It is `transformers.generate` without what WARP does not need. Prompts are sorted by length and prefilled together;
keys and values go into memory that is reserved once; the randomness is drawn for many tokens at a time (Gumbel-max:
argmax of logits plus Gumbel noise is a sample of the softmax); every few tokens the ended rows leave the batch.

A row's noise depends on its place in the batch and on the token's place in the completion alone, so that one
completion's end never changes the randomness of another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from warpctl.rl.decoder import Decoder, decoder_for
from warpctl.rl.logprobs import left_padded, token_logprobs
from warpctl.spec.training import Sampling

END_CHECK_TOKENS = 4
"""Ended rows are looked for, and dropped, every so many tokens: each look waits for the device."""
KEPT_SHARE = 0.8
"""Rows are dropped once no more than this share is alive: dropping copies the cache."""
NOISE_BYTES = 64 * 1024 * 1024
"""Noise drawn ahead takes at most about this much memory."""


@dataclass(frozen=True)
class Completions:
    """Sampled completions, one entry a prompt, in the prompts' order."""

    prompts: list[list[int]]
    """The prompt tokens."""
    tokens: list[list[int]]
    """The completion tokens, the end-of-sequence token included where it was sampled."""
    logprobs: list[Tensor]
    """Per completion token (T,): its log-probability at the sampling temperature, of the whole distribution (top-p
    or not), float32 on the CPU."""
    is_complete: list[bool]
    """True: it ended with an end-of-sequence token; False: it was cut at the token limit."""
    logits: list[Tensor] | None = None
    """With keep_logits: per completion (T, V), the logits that its tokens were drawn from, float32, not divided by
    the temperature, on the model's device."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each completion, the end included."""
        return [len(tokens) for tokens in self.tokens]


def top_p_filtered(scaled_BV: Tensor, top_p: float) -> Tensor:
    """Logits with -inf outside the nucleus: the fewest most likely tokens whose mass reaches `top_p`, at least one."""
    if top_p >= 1.0:
        return scaled_BV
    sorted_BV, order_BV = scaled_BV.sort(dim=-1, descending=True, stable=True)
    probs_BV = sorted_BV.softmax(dim=-1)
    mass_before_BV = probs_BV.cumsum(dim=-1) - probs_BV
    outside_BV = torch.zeros_like(probs_BV, dtype=torch.bool).scatter(-1, order_BV, mass_before_BV >= top_p)
    return scaled_BV.masked_fill(outside_BV, -math.inf)


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise, float32: -log(-log(u)). u has 53 bits: 24 would show in the tails of a large vocabulary."""
    uniform = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
    return uniform.log_().neg_().log_().neg_().float().to(device)


def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    end_tokens: frozenset[int],
    pad_token: int,
    generator: torch.Generator,
    max_batch: int | None = None,
    keep_logits: bool = False,
) -> Completions:
    """Sample one completion for each prompt (repeat a prompt to have several).

    At most `max_batch` rows are decoded together (None: all). The model is used as it is: put it into eval mode and
    under autocast before. With `generator` in the same state, the same model gives the same completions.
    """
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    step = max_batch or max(1, len(order))
    tokens: list[list[int]] = [[] for _ in order]
    logprobs: list[Tensor] = [torch.empty(0) for _ in order]
    logits: list[Tensor] = [torch.empty(0) for _ in order]
    for start in range(0, len(order), step):
        rows = order[start : start + step]
        chunk = _decode(
            model,
            [list(prompts[row]) for row in rows],
            sampling=sampling,
            end_tokens=end_tokens,
            pad_token=pad_token,
            generator=generator,
            keep_logits=keep_logits,
        )
        for place, row in enumerate(rows):
            tokens[row], logprobs[row] = chunk.tokens[place], chunk.logprobs[place]
            if chunk.logits is not None:
                logits[row] = chunk.logits[place]
    return Completions(
        prompts=[list(prompt) for prompt in prompts],
        tokens=tokens,
        logprobs=logprobs,
        is_complete=[bool(row) and row[-1] in end_tokens for row in tokens],
        logits=logits if keep_logits else None,
    )


@torch.no_grad()
def _decode(
    model: Any,
    prompts: list[list[int]],
    *,
    sampling: Sampling,
    end_tokens: frozenset[int],
    pad_token: int,
    generator: torch.Generator,
    keep_logits: bool,
) -> Completions:
    """Decode one batch of prompts, in their order."""
    device = model.device
    num_rows, max_new, temperature = len(prompts), sampling.max_new_tokens, float(sampling.temperature)
    input_BS, mask_BS = left_padded(prompts, pad_token, device)
    decoder = decoder_for(model, capacity=input_BS.shape[1] + max_new)
    ends = torch.tensor(sorted(end_tokens), device=device)
    tokens_BT = torch.full((num_rows, max_new), pad_token, device=device)
    logprobs_BT = torch.zeros((num_rows, max_new), device=device)
    said: list[Tensor] = []
    """Scaled logits since the last look: their log-probabilities are taken together."""
    kept_logits: list[tuple[Tensor, Tensor]] = []
    rows_A = torch.arange(num_rows, device=device)
    has_ended_A = torch.zeros(num_rows, dtype=torch.bool, device=device)

    logits_AV = _prefilled(decoder, prompts, input_BS, mask_BS)
    num_ahead = max(1, NOISE_BYTES // (8 * num_rows * logits_AV.shape[-1]))
    noise_NBV = torch.empty(0)
    for t in range(max_new):
        if t % num_ahead == 0:
            shape = (min(num_ahead, max_new - t), num_rows, logits_AV.shape[-1])
            noise_NBV = gumbel_noise(shape, generator, device)
        noise_BV = noise_NBV[t % num_ahead]
        scaled_AV = logits_AV / temperature
        filtered_AV = top_p_filtered(scaled_AV, float(sampling.top_p))
        next_A = (filtered_AV + (noise_BV if len(rows_A) == num_rows else noise_BV[rows_A])).argmax(dim=-1)
        tokens_BT[rows_A, t] = next_A
        said.append(scaled_AV)
        if keep_logits:
            kept_logits.append((rows_A, logits_AV))
        is_look = (t + 1) % END_CHECK_TOKENS == 0
        if is_look or t + 1 == max_new or scaled_AV.numel() > NOISE_BYTES // (4 * END_CHECK_TOKENS):
            since = slice(t + 1 - len(said), t + 1)
            recent_AN = tokens_BT[rows_A, since]
            logprobs_BT[rows_A, since] = token_logprobs(torch.stack(said, dim=1), recent_AN, temperature=1.0)
            has_ended_A = has_ended_A | torch.isin(recent_AN, ends).any(dim=1)
            said = []
        if t + 1 == max_new:
            break
        if is_look:
            alive = (~has_ended_A).nonzero()[:, 0]
            if len(alive) == 0:
                break
            if len(alive) <= KEPT_SHARE * len(rows_A):
                decoder.keep(alive)
                rows_A, next_A, has_ended_A = rows_A[alive], next_A[alive], has_ended_A[alive]
        logits_AV = decoder.step(next_A)
    return _trimmed(prompts, tokens_BT, logprobs_BT, kept_logits, end_tokens)


def _prefilled(decoder: Decoder, prompts: list[list[int]], input_BS: Tensor, mask_BS: Tensor | None) -> Tensor:
    """Logits (B, V) of the first completion token; a prompt with several completions is read once."""
    first: dict[tuple[int, ...], int] = {}
    for row, prompt in enumerate(prompts):
        first.setdefault(tuple(prompt), row)
    if len(first) == len(prompts):
        return decoder.prefill(input_BS, mask_BS)
    unique = torch.tensor(list(first.values()), device=input_BS.device)
    logits_AV = decoder.prefill(input_BS[unique], None if mask_BS is None else mask_BS[unique])
    places = {prompt: place for place, prompt in enumerate(first)}
    rows_B = torch.tensor([places[tuple(prompt)] for prompt in prompts], device=input_BS.device)
    decoder.keep(rows_B)
    return logits_AV[rows_B]


def _trimmed(
    prompts: list[list[int]],
    tokens_BT: Tensor,
    logprobs_BT: Tensor,
    kept_logits: list[tuple[Tensor, Tensor]],
    end_tokens: frozenset[int],
) -> Completions:
    """Cut every row after its first end-of-sequence token: rows run on to the next look for ends."""
    tokens, lengths = [], []
    for row in tokens_BT.tolist():
        length = next((t + 1 for t, token in enumerate(row) if token in end_tokens), len(row))
        tokens.append(row[:length])
        lengths.append(length)
    logprobs_BT = logprobs_BT.cpu()
    logits: list[Tensor] | None = None
    if kept_logits:
        by_row: list[list[Tensor]] = [[] for _ in prompts]
        for rows_A, logits_AV in kept_logits:
            for place, row_number in enumerate(rows_A.tolist()):
                if len(by_row[row_number]) < lengths[row_number]:
                    by_row[row_number].append(logits_AV[place])
        logits = [torch.stack(rows) for rows in by_row]
    return Completions(
        prompts=prompts,
        tokens=tokens,
        logprobs=[logprobs_BT[row, :length] for row, length in enumerate(lengths)],
        is_complete=[row[-1] in end_tokens for row in tokens],
        logits=logits,
    )
