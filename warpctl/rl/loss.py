"""REINFORCE (Algorithm 1, line 8): ascend along reward times the gradient of the log-probability.

    loss = - 1/B sum_b advantage_b * sum_t log pi(y_bt | x_b, y_b,<t)

Its gradient is minus the mean over the batch of advantage * grad log pi(y|x): summed over a completion's tokens, not
averaged, so that long and short completions weigh as the paper has it. One optimizer step per batch, on-policy: no
importance ratio, nothing to clip.

Shape suffixes: B completions of the batch (of the micro-batch, for the tensors), T completion tokens.
"""

from __future__ import annotations

from torch import Tensor

from warpctl.rl.logprobs import sequence_logprobs


def reinforce_loss(logprobs_BT: Tensor, in_completion_BT: Tensor, advantage_B: Tensor, *, batch_size: int) -> Tensor:
    """This micro-batch's part of the loss: the parts of all micro-batches add up to the loss of the batch.

    `batch_size` is that of the whole batch. No gradient goes through the advantage.
    """
    return -(advantage_B.detach() * sequence_logprobs(logprobs_BT, in_completion_BT)).sum() / batch_size


def warmed_up(learning_rate: float, step: int, warmup_steps: int) -> float:
    """Learning rate of `step` (from 1): linear from 0 over the warm-up, then constant."""
    return learning_rate * min(1.0, step / warmup_steps) if warmup_steps else learning_rate
