"""The anchor is a float32 average that follows the policy; in bfloat16 it would stand still."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from warpctl.rl.anchor import update_anchor_

STEPS, RATE, LEARNING_RATE = 1000, 0.01, 1e-6


def policy_path(seed=0, size=64):
    """Weights of a policy that takes steps of about the paper's learning rate, in float32."""
    generator = torch.Generator().manual_seed(seed)
    policy = 0.02 * torch.randn(size, generator=generator)
    for _ in range(STEPS):
        policy = policy + LEARNING_RATE * (0.5 + torch.randn(size, generator=generator))
        yield policy


def test_a_thousand_steps_follow_the_float64_recurrence():
    """ema <- (1 - mu) ema + mu theta in float64 beside the float32 one: within a few units in the last place."""
    anchor, reference = None, None
    for policy in policy_path():
        if anchor is None:
            anchor, reference = policy.clone(), policy.double().numpy().copy()
            start = reference.copy()
            continue
        update_anchor_([anchor], [policy], ema_rate=RATE)
        reference = (1 - RATE) * reference + RATE * policy.double().numpy()

    error = np.abs(anchor.double().numpy() - reference)
    moved = np.abs(reference - start)
    assert moved.min() > 1e-5
    assert error.max() < 1e-3 * moved.min()


def test_in_bfloat16_most_of_the_anchor_would_never_move():
    """Why the anchor is float32: mu (theta - ema) is below half a unit in the last place of bfloat16."""
    anchor = None
    for policy in policy_path():
        if anchor is None:
            anchor = policy.bfloat16()
            start = anchor.clone()
            continue
        anchor = ((1 - RATE) * anchor + RATE * policy.bfloat16()).bfloat16()

    assert (anchor == start).float().mean() > 0.7


def test_the_policy_is_only_read():
    anchor, policy = torch.zeros(3), torch.tensor([1.0, 2.0, 4.0])

    update_anchor_([anchor], [policy], ema_rate=0.25)

    assert anchor.tolist() == [0.25, 0.5, 1.0]
    assert policy.tolist() == [1.0, 2.0, 4.0]


def test_rate_one_copies_the_policy():
    anchor, policy = torch.randn(5), torch.randn(5)

    update_anchor_([anchor], [policy], ema_rate=1.0)

    assert torch.equal(anchor, policy)


@pytest.mark.parametrize(("anchor_dtype", "policy_dtype"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_anything_but_float32_is_refused(anchor_dtype, policy_dtype):
    with pytest.raises(ValueError, match="float32"):
        update_anchor_(
            [torch.zeros(2, dtype=getattr(torch, anchor_dtype))],
            [torch.zeros(2, dtype=getattr(torch, policy_dtype))],
            ema_rate=0.1,
        )
