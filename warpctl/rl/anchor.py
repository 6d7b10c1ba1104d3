"""The anchor: an exponential moving average of the policy, in float32 (Algorithm 1, lines 4 and 9).

    anchor <- (1 - mu) anchor + mu policy        after every optimizer step; mu is the EMA rate

It must be float32. With mu = 0.01 and a learning rate of 1e-6 an update is mostly smaller than half a unit in the last
place of bfloat16: kept there, most of its entries would never move. A test shows it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def update_anchor_(anchor: Iterable[Tensor], policy: Iterable[Tensor], *, ema_rate: float) -> None:
    """Move the anchor's tensors toward the policy's, in place as the underscore says; the policy is only read.

    Any shapes, the same for both; all float32. Raises ValueError otherwise.
    """
    anchor_tensors, policy_tensors = list(anchor), list(policy)
    if any(tensor.dtype != torch.float32 for tensor in (*anchor_tensors, *policy_tensors)):
        raise ValueError("the anchor and the policy that it follows are float32")
    # a + mu (p - a): the same as (1 - mu) a + mu p, with one rounding less and exact where p = a
    torch._foreach_lerp_(anchor_tensors, policy_tensors, ema_rate)  # what torch's own EMA calls
