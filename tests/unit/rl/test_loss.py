"""The policy gradient against a derivation by hand in float64, and against itself in micro-batches."""

from __future__ import annotations

import math

import pytest
import torch

from tests.builders.rl_stage import small_policy
from warpctl.rl.advantage import batch_mean, leave_one_out, no_baseline
from warpctl.rl.logprobs import completion_logprobs
from warpctl.rl.loss import reinforce_loss, warmed_up


class TwoTokens(torch.nn.Module):
    """pi(token 1) = sigmoid(w) at every position, whatever came before: logits are (0, w)."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    device = torch.device("cpu")

    def forward(self, input_ids, attention_mask, position_ids, use_cache, logits_to_keep):
        logits = torch.stack([torch.zeros_like(self.weight), self.weight])
        shape = (input_ids.shape[0], logits_to_keep, 2)

        class Output:
            pass

        output = Output()
        output.logits = _Float64(logits.expand(shape))
        return output


class _Float64:
    """Logits that stay float64, so that the comparison is one of formulas and not of rounding."""

    def __init__(self, values):
        self.values = values

    def __getitem__(self, index):
        return _Float64(self.values[index])

    def float(self):
        return _Kept(self.values)


class _Kept(torch.Tensor):
    @staticmethod
    def __new__(cls, values):
        return values.as_subclass(cls)

    def float(self):
        return self


@pytest.mark.parametrize("temperature", [1.0, 0.9])
def test_gradient_is_the_hand_derived_one_on_a_two_token_model(temperature):
    """log pi(1) = log s, log pi(0) = log(1 - s), s = sigmoid(w / T): d/dw log pi = (1 - s)/T and -s/T.

    The gradient of the loss is - 1/B sum_b advantage_b sum_t d log pi(y_bt) / dw.
    """
    weight = 0.7
    completions = [[1, 1, 0], [0], [1, 0]]
    reward = torch.tensor([1.5, -0.25, 2.0], dtype=torch.float64)
    advantage = batch_mean(reward, 1)
    model = TwoTokens(weight)

    logprobs_BT, in_completion_BT = completion_logprobs(
        model, [[0], [0], [0]], completions, temperature=temperature, pad_token=0
    )
    reinforce_loss(logprobs_BT, in_completion_BT, advantage, batch_size=3).backward()

    s = 1 / (1 + math.exp(-weight / temperature))
    slope = {1: (1 - s) / temperature, 0: -s / temperature}
    mean = sum([1.5, -0.25, 2.0]) / 3
    expected = (
        -sum(
            (value - mean) * sum(slope[token] for token in completion)
            for value, completion in zip([1.5, -0.25, 2.0], completions, strict=True)
        )
        / 3
    )
    assert model.weight.grad.item() == pytest.approx(expected, rel=1e-12)


def test_loss_sums_over_tokens_and_averages_over_the_batch():
    """Advantages 2 and -1, log pi(y|x) = -3 and -5 (padding left out): -(2 * -3 + -1 * -5) / 2 = 0.5."""
    logprobs_BT = torch.tensor([[-1.0, -2.0, -99.0], [-1.0, -1.0, -3.0]])
    in_completion_BT = torch.tensor([[True, True, False], [True, True, True]])

    loss = reinforce_loss(logprobs_BT, in_completion_BT, torch.tensor([2.0, -1.0]), batch_size=2)

    assert loss.item() == 0.5


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4])
def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(micro_batch):
    prompts = [[1, 5, 6, 7], [1, 5, 9, 7], [1, 5, 8, 9], [1, 5, 6, 8]]
    completions = [[9, 4, 2], [8, 2], [7, 11, 12, 13, 2], [10]]
    advantage = torch.tensor([0.5, -1.0, 2.0, 0.25])

    def gradient(size):
        policy = small_policy()
        for start in range(0, 4, size):
            part = slice(start, start + size)
            logprobs_BT, in_completion_BT = completion_logprobs(
                policy, prompts[part], completions[part], temperature=0.9, pad_token=0
            )
            reinforce_loss(logprobs_BT, in_completion_BT, advantage[part], batch_size=4).backward()
        return torch.cat([parameter.grad.flatten() for parameter in policy.parameters()]).double()

    whole, parts = gradient(4), gradient(micro_batch)

    assert (whole - parts).norm() <= 1e-6 * whole.norm()
    assert whole.norm() > 0.1


def test_no_gradient_goes_through_the_advantage():
    advantage = torch.tensor([1.0], requires_grad=True)
    logprobs_BT = torch.tensor([[-1.0]], requires_grad=True)

    reinforce_loss(logprobs_BT, torch.tensor([[True]]), advantage, batch_size=1).backward()

    assert advantage.grad is None
    assert logprobs_BT.grad.item() == -1.0


def test_baselines_are_worked_out_by_hand():
    """Rewards of two prompts with three completions each."""
    reward = torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0])

    assert no_baseline(reward, 3).tolist() == [1.0, 2.0, 6.0, 0.0, 0.0, 3.0]
    assert batch_mean(reward, 3).tolist() == [-1.0, 0.0, 4.0, -2.0, -2.0, 1.0]
    # others of 1: (2 + 6)/2 = 4; of 2: 3.5; of 6: 1.5; of the second prompt: 1.5, 1.5, 0
    assert leave_one_out(reward, 3).tolist() == [-3.0, -1.5, 4.5, -1.5, -1.5, 3.0]


@pytest.mark.parametrize("num_generations", [1, 4])
def test_leave_one_out_refuses_groups_that_are_none(num_generations):
    with pytest.raises(ValueError, match="groups of at least 2"):
        leave_one_out(torch.zeros(6), num_generations)


def test_learning_rate_warms_up_linearly_from_zero_and_stays():
    assert [warmed_up(0.8, step, 4) for step in (1, 2, 3, 4, 5, 99)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert warmed_up(0.8, 1, 0) == 0.8
