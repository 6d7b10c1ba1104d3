"""KL of a policy to the SFT policy on completions sampled from the policy, in nats per completion.

    k1 = sum_t log pi(y_t | y_<t) - log pi_sft(y_t | y_<t)          the plain estimate
    rb = sum_t sum_v pi(v | y_<t) (log pi(v | y_<t) - log pi_sft(v | y_<t))

Both are unbiased for KL(pi || pi_sft) of whole completions when they are sampled from pi itself (top-p 1). The second is the
Rao-Blackwellised one (arXiv 2504.10637): the exact KL of each next-token distribution along the sampled prefix, with
never more variance at the same cost.

Distributions are softmax(logits / temperature), the convention of rl/logprobs.py: every completion token, the
end-of-sequence token included. Shape suffixes: B completions, T completion tokens, V vocabulary, N positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_NUMBERS = 1 << 22
"""Logits that are turned into log-probabilities together (16 MiB in float32)."""


def kl_of_completions(
    policy_BTV: Tensor, sft_BTV: Tensor, tokens_BT: Tensor, in_completion_BT: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """(k1_B, rb_B) in float64 on the CPU, from logits that are not divided by the temperature.

    The vocabulary's log-probabilities exist for a few positions at a time only; positions outside completions are skipped.
    """
    rows_N, columns_N = in_completion_BT.nonzero(as_tuple=True)
    k1_B = torch.zeros(len(tokens_BT), dtype=torch.float64)
    rb_B = torch.zeros(len(tokens_BT), dtype=torch.float64)
    for part in _chunks(len(rows_N), max(1, CHUNK_NUMBERS // policy_BTV.shape[-1])):
        rows, columns = rows_N[part], columns_N[part]
        policy_NV = (policy_BTV[rows, columns].float() / temperature).log_softmax(dim=-1)
        sft_NV = (sft_BTV[rows, columns].float() / temperature).log_softmax(dim=-1)
        ratio_NV = policy_NV - sft_NV
        k1_N = ratio_NV.gather(1, tokens_BT[rows, columns][:, None])[:, 0]
        # p log p -> 0: a token that the policy cannot produce (-inf) adds nothing
        rb_N = torch.where(policy_NV == -math.inf, 0.0, policy_NV.exp() * ratio_NV).sum(dim=-1)
        k1_B.index_add_(0, rows.cpu(), k1_N.double().cpu())
        rb_B.index_add_(0, rows.cpu(), rb_N.double().cpu())
    return k1_B, rb_B


def _chunks(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, start + size)
