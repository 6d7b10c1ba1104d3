"""Scores become rewards: shaping, and the KL term of the whole completion inside the reward."""

from __future__ import annotations

from decimal import Decimal

import pytest
import torch

from warpctl.rl.reward import kl_estimate, kl_reward, shaped_score, weighted_score
from warpctl.spec.training import RewardShaping

LENGTH = torch.tensor([4.0, 10.0])
COMPLETE = torch.tensor([True, False])


def test_scores_are_weighted_and_added():
    scores = {"helpful": [1.0, -2.0], "safe": [0.5, 4.0]}

    assert weighted_score(scores, {"helpful": 2.0, "safe": -1.0}).tolist() == [1.5, -8.0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [3.0, -5.0]),
        ({"clip": "2"}, [2.0, -2.0]),
        ({"length_penalty": "0.5"}, [1.0, -10.0]),
        ({"missing_end_penalty": "7"}, [3.0, -12.0]),
        # the score is clipped before the penalties: 2 - 2 and -2 - 5 - 7
        ({"clip": "2", "length_penalty": "0.5", "missing_end_penalty": "7"}, [0.0, -14.0]),
    ],
)
def test_shaping_is_worked_out_by_hand(settings, expected):
    shaping = RewardShaping(**{name: Decimal(value) for name, value in settings.items()})
    score = torch.tensor([3.0, -5.0])

    assert shaped_score(score, LENGTH, COMPLETE, shaping=shaping).tolist() == expected
    assert score.tolist() == [3.0, -5.0]


def test_the_kl_term_is_the_log_ratio_of_the_whole_completion_inside_the_reward():
    """Trap 3. Log-ratios 0.5 + 0.25 and -1 + 0.5 - 0.25: kl = 0.75 and -0.75; with beta 0.1, r = s - 0.1 kl.

    A mean over tokens would give 0.375 and -0.25, and padding must not count.
    """
    policy_BT = torch.tensor([[-1.0, -0.5, -7.0], [-2.0, -1.0, -0.75]])
    anchor_BT = torch.tensor([[-1.5, -0.75, -1.0], [-1.0, -1.5, -0.5]])
    in_completion_BT = torch.tensor([[True, True, False], [True, True, True]])

    kl = kl_estimate(policy_BT, anchor_BT, in_completion_BT)

    assert kl.tolist() == [0.75, -0.75]
    assert kl_reward(torch.tensor([3.0, 1.0]), kl, kl_coefficient=0.1).tolist() == pytest.approx([2.925, 1.075])
