"""Log-probabilities of completions. The one convention of warpctl, in training, sampling, KL and evaluation:

    log pi(y_t | x, y_<t) = log softmax(logits_t / temperature)[y_t]     for every token y_t of the completion,

at the sampling temperature, of the whole distribution (top-p does not enter), prompt tokens left out and the
end-of-sequence token included where the completion has one. log pi(y|x) is their sum over the completion.

Shape suffixes: B completions, S prompt tokens (the longest), T completion tokens (the longest), V vocabulary.

A batch is laid out with prompts padded on the left and completions on the right, so that all completions begin in
the same column: the logits of T + 1 columns are enough, and where all prompts have one length no mask is needed
(causal attention never looks right). Padding never changes a result beyond rounding; tests prove it for both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from warpctl.rl.fused import last_logits, may_fuse


def left_padded(prompts: Sequence[Sequence[int]], pad_token: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Prompts as (B, S) tokens, and the (B, S) mask that is 1 on true tokens; None where nothing is padded."""
    longest = max(len(prompt) for prompt in prompts)
    tokens = [[pad_token] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    tokens_BS = torch.tensor(tokens, device=device)
    if all(len(prompt) == longest for prompt in prompts):
        return tokens_BS, None
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return tokens_BS, torch.tensor(mask, device=device)


@dataclass(frozen=True)
class CompletionLogits:
    """What a model says about every token of some completions."""

    rows: range
    """Which of the given completions these are."""
    logits_BTV: Tensor
    """The logits that completion token t is drawn from, not divided by the temperature; garbage outside."""
    tokens_BT: Tensor
    """The completion tokens, padded on the right."""
    in_completion_BT: Tensor
    """True on the tokens of a completion, end-of-sequence included; False on padding."""


def forward_completions(
    model: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], *, pad_token: int
) -> CompletionLogits:
    """One forward pass over all the given completions; keeps the graph if gradients are on."""
    device = model.device
    prompts_BS, mask_BS = left_padded(prompts, pad_token, device)
    longest = max(len(completion) for completion in completions)
    tokens_BT = torch.tensor(
        [list(completion) + [pad_token] * (longest - len(completion)) for completion in completions], device=device
    )
    lengths_B = torch.tensor([len(completion) for completion in completions], device=device)
    in_completion_BT = torch.arange(longest, device=device)[None, :] < lengths_B[:, None]
    mask, positions = None, None
    if mask_BS is not None:
        mask = torch.cat([mask_BS, in_completion_BT.to(mask_BS.dtype)], dim=1)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    # the column before a token holds its logits; the last token's own column predicts nothing that we need
    input_BL = torch.cat([prompts_BS, tokens_BT], dim=1)
    if may_fuse(model, capacity=input_BL.shape[1]):
        logits = last_logits(model, input_BL, num_wanted=longest + 1, mask_BL=mask, positions_BL=positions)
    else:
        logits = model(
            input_ids=input_BL,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            logits_to_keep=longest + 1,
        ).logits
    return CompletionLogits(
        rows=range(len(completions)),
        logits_BTV=logits[:, :-1].float(),
        tokens_BT=tokens_BT,
        in_completion_BT=in_completion_BT,
    )


def completion_logits(
    model: Any,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_token: int,
    micro_batch: int,
) -> Iterator[CompletionLogits]:
    """The logits of all completions, `micro_batch` at a time, so that (B, T, V) of all never exists at once."""
    for start in range(0, len(completions), micro_batch):
        part = forward_completions(
            model, prompts[start : start + micro_batch], completions[start : start + micro_batch], pad_token=pad_token
        )
        yield CompletionLogits(
            rows=range(start, start + len(part.rows)),
            logits_BTV=part.logits_BTV,
            tokens_BT=part.tokens_BT,
            in_completion_BT=part.in_completion_BT,
        )


def token_logprobs(logits_BTV: Tensor, tokens_BT: Tensor, *, temperature: float) -> Tensor:
    """log softmax(logits / temperature) at the given tokens, (B, T) float32."""
    scaled_BTV = logits_BTV.float() / temperature
    chosen_BT = scaled_BTV.gather(-1, tokens_BT[..., None])[..., 0]
    return chosen_BT - scaled_BTV.logsumexp(dim=-1)


def completion_logprobs(
    model: Any,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    temperature: float,
    pad_token: int,
) -> tuple[Tensor, Tensor]:
    """(logprobs_BT, in_completion_BT): log-probabilities by the convention above, exactly 0 outside the completions.

    Differentiable if gradients are on.
    """
    forward = forward_completions(model, prompts, completions, pad_token=pad_token)
    logprobs_BT = token_logprobs(forward.logits_BTV, forward.tokens_BT, temperature=temperature)
    # where, not a product: garbage in the padding may be anything, and its gradient must be nothing
    return torch.where(forward.in_completion_BT, logprobs_BT, 0.0), forward.in_completion_BT


def sequence_logprobs(logprobs_BT: Tensor, in_completion_BT: Tensor) -> Tensor:
    """log pi(y|x) (B,): the sum over the whole completion."""
    return torch.where(in_completion_BT, logprobs_BT, 0.0).sum(dim=1)


def padded_logprobs(logprobs: Sequence[Tensor], device: torch.device) -> Tensor:
    """Ragged per-token log-probabilities (as sampling returns them) as (B, T), 0 outside."""
    return torch.nn.utils.rnn.pad_sequence(list(logprobs), batch_first=True).to(device)


@torch.no_grad()
def micro_batched_logprobs(
    model: Any,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    temperature: float,
    pad_token: int,
    micro_batch: int,
) -> Tensor:
    """logprobs_BT of all completions without gradients, `micro_batch` at a time; 0 outside the completions."""
    longest = max(len(completion) for completion in completions)
    parts = []
    for part in completion_logits(model, prompts, completions, pad_token=pad_token, micro_batch=micro_batch):
        logprobs_BT = token_logprobs(part.logits_BTV, part.tokens_BT, temperature=temperature)
        logprobs_BT = torch.where(part.in_completion_BT, logprobs_BT, 0.0)
        parts.append(torch.nn.functional.pad(logprobs_BT, (0, longest - logprobs_BT.shape[1])))
    return torch.cat(parts)
