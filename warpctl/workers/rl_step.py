"""Around the arithmetic of one step: the gradient in micro-batches, the step's record, and the stop before a bad number."""

from __future__ import annotations

import json
import math

import torch

from warpctl import artifacts
from warpctl.errors import NumericsError
from warpctl.rl.logprobs import completion_logprobs
from warpctl.rl.loss import reinforce_loss
from warpctl.rl.sampling import Completions
from warpctl.workers.harness import Context
from warpctl.workers.rl_run import RlRun
from warpctl.workers.rollouts import Rewards, Rollouts

Record = dict[str, float]


def policy_gradient(rl_run: RlRun, drawn: Completions, advantage_B: torch.Tensor) -> tuple[float, float]:
    """Gradients of the batch, gathered micro-batch by micro-batch. Returns (loss, gradient norm before clipping)."""
    training, policy = rl_run.task.training, rl_run.policy
    rl_run.optimizer.zero_grad(set_to_none=True)
    loss_sum = 0.0
    for start in range(0, len(drawn.tokens), rl_run.micro_batch):
        part = slice(start, start + rl_run.micro_batch)
        with rl_run.accelerator.autocast():
            logprobs_BT, in_completion_BT = completion_logprobs(
                policy,
                drawn.prompts[part],
                drawn.tokens[part],
                temperature=float(training.sampling.temperature),
                pad_token=rl_run.vocabulary.pad_token,
            )
        advantage = advantage_B[part].to(logprobs_BT.device)
        loss = reinforce_loss(logprobs_BT, in_completion_BT, advantage, batch_size=len(drawn.tokens))
        rl_run.accelerator.backward(loss)
        loss_sum += loss.item()
    limit = training.optimizer.max_grad_norm
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), math.inf if limit is None else float(limit))
    return loss_sum, norm.item()


def record_of(rl_run: RlRun, step: int, rollouts: Rollouts, rewards: Rewards, **figures: float) -> Record:
    """The step's metrics: means over the batch; `figures` come behind them."""
    length_B, is_complete = rollouts.length_B, rollouts.drawn.is_complete
    return {
        "step": step,
        "score": rewards.score_B.mean().item(),
        "scoreDeviation": rewards.score_B.std(correction=0).item(),
        "reward": rewards.reward_B.mean().item(),
        **({} if rl_run.anchor is None else {"kl/anchor": rewards.anchor_kl_B.mean().item()}),
        "kl/sft": rewards.sft_kl_B.mean().item(),
        "length": length_B.mean().item(),
        "truncatedShare": 1 - sum(is_complete) / len(is_complete),
        # on-policy, the mean of -log pi is an unbiased estimate of the entropy per token
        "entropy": -(rewards.policy_BT.sum() / length_B.sum()).item(),
        **figures,
    }


def stop_at_bad_numbers(context: Context, record: Record, rollouts: Rollouts, rewards: Rewards) -> None:
    """Raise NumericsError before anything that is not finite reaches the weights; step and batch stay with the attempt."""
    bad = [name for name, value in record.items() if not math.isfinite(value)]
    if not bad:
        return
    stage, step = context.stage_input, record["step"]
    path = artifacts.failure(stage.kind, stage.key, stage.attempt_id)
    body = {
        "metrics": {name: repr(value) for name, value in record.items()},
        "prompts": rollouts.drawn.prompts,
        "completions": rollouts.drawn.tokens,
        "texts": rollouts.texts,
        "rewards": [repr(value) for value in rewards.reward_B.tolist()],
    }
    context.store.write(path, json.dumps(body, indent=1).encode())
    context.log.error("numeric failure", dump=context.store.uri(path))
    raise NumericsError(
        f"step {step}: {', '.join(bad)} not finite; the weights are those of step {step - 1}",
        hint="the batch is dumped beside the attempt's log; lower the learning rate or raise klCoefficient",
    )
