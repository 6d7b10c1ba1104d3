"""One RL run: Algorithm 1 of WARP (arXiv 2406.16768v1), lines 4 to 10. `python -m warpctl.workers.rl` in a pod or a shell.

    4   theta, anchor <- theta_init                     the anchor restarts with every RL run
    5   for t = 1 ... T
    6     sample completions y ~ pi_theta(. | x) of prompts x                        rl/sampling.py
    7     r_beta(y) <- r(x, y) - beta log(pi_theta(y|x) / pi_anchor(y|x))            rl/reward.py
    8     theta <- Adam(theta, (r_beta(y) - baseline) grad log pi_theta(y|x))        rl/advantage.py, rl/loss.py
    9     anchor <- (1 - mu) anchor + mu theta                                       rl/anchor.py
    10  publish theta, and never the anchor

What the paper leaves open and what is chosen here: a fresh Adam for every run, linear warm-up from 0, then a constant
rate; gradient clipping by global norm; a baseline; dropout off; one optimizer step per batch, on-policy. All of it:
docs/training.md.
Left out: a critic, importance ratios, PPO's clipping, sequence packing, several processes.

A run that is stopped or killed goes on from its newest resume state to the same bits (one CPU thread): nothing random is
carried from step to step, and metrics.jsonl is kept with the weights.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from warpctl.errors import InputError, Interrupted, WarpctlError
from warpctl.rl.advantage import ADVANTAGES
from warpctl.rl.anchor import update_anchor_
from warpctl.rl.loss import warmed_up
from warpctl.rl.randomness import derived_seed
from warpctl.spec.stage_input import RlTask
from warpctl.spec.training import Anchor
from warpctl.storage.artifact import Artifact, weights_prefix
from warpctl.workers import resume_state
from warpctl.workers.harness import Context, run
from warpctl.workers.metrics import METRICS_FILE, MetricsLog
from warpctl.workers.policy_files import publish_policy
from warpctl.workers.rl_run import RlRun, load_run, restore, save
from warpctl.workers.rl_step import Record, policy_gradient, record_of, stop_at_bad_numbers
from warpctl.workers.rollouts import reward_rollouts, sample_rollouts
from warpctl.workers.tracking import require_library
from warpctl.workers.trajectory import TrajectoryEvaluation

SHOW_SECONDS = 10.0
"""New metrics are shown in the store at least this often."""


def main(context: Context) -> None:
    """Train, save, obey, publish."""
    stage, store = context.stage_input, context.store
    if not isinstance(stage.task, RlTask):
        raise InputError(f"stage {stage.stage_id} is a {stage.task.kind}, not an RL run")
    require_library(stage.task.tracking)
    torch.set_num_threads(stage.resources.threads)

    # line 4
    rl_run = load_run(context, stage.task)
    first_step, metrics = restore(context, rl_run)

    # lines 5 to 9
    try:
        outcome = train(context, rl_run, metrics, first_step=first_step)
    finally:
        metrics.show()
        metrics.tracker.finish()

    # line 10
    init = stage.input("init")
    publish_policy(context.publication, rl_run.policy, Artifact.of(store, init), weights_prefix(init))
    context.publication.write_file(METRICS_FILE, metrics.to_bytes())
    context.publication.commit(outcome=outcome, gpu_seconds=context.gpu_seconds())
    try:
        resume_state.drop_all(store, stage)
    except (WarpctlError, OSError) as error:  # gc takes what stays
        context.log.warning("resume states not dropped", error=str(error))


def train(context: Context, rl_run: RlRun, metrics: MetricsLog, *, first_step: int) -> dict[str, Any]:
    """Line 5: the steps after `first_step`. Returns the outcome; raises Interrupted once the state is saved."""
    task, training = rl_run.task, rl_run.task.training
    evaluation = TrajectoryEvaluation(
        prompts=rl_run.evaluation_prompts,
        num_prompts=training.evaluation.num_prompts,
        seed=task.seed,
        sampling=training.sampling,
        vocabulary=rl_run.vocabulary,
        score=rl_run.score,
    )
    if not metrics.lines and evaluation.num_prompts:
        metrics.add({"step": 0, **evaluate(rl_run, evaluation)})
    saved, shown = first_step, time.monotonic()
    for step in range(first_step + 1, task.steps + 1):
        if context.stop.is_set():
            if saved < step - 1:
                save(context, rl_run, step - 1, metrics)
            raise Interrupted(f"asked to stop after step {step - 1} of {task.steps}; what was done is saved")
        record = train_step(rl_run, step, metrics, context)
        is_too_far = training.max_kl is not None and (
            metrics.running_mean("kl/sft", record["kl/sft"]) >= float(training.max_kl)
        )
        is_last = is_too_far or step == task.steps
        if evaluation.num_prompts and (is_last or step % training.evaluation.every_steps == 0):
            record |= evaluate(rl_run, evaluation)
        for warning in metrics.add_step(record):
            context.log.warning("health", step=step, warning=warning)
        health = {"health": ", ".join(metrics.warnings)} if metrics.warnings else {}
        context.report_progress(step, task.steps, "steps", score=record["score"], kl=record["kl/sft"], **health)
        if is_too_far:
            context.log.warning("ended early", step=step, reason="running KL to SFT reached training.maxKl")
            return {"steps": step, "endedEarly": "MaxKl"}
        if step % training.resume_state.every_steps == 0 and not is_last:
            save(context, rl_run, step, metrics)
            saved = step
        if saved == step or time.monotonic() - shown > SHOW_SECONDS:
            metrics.show()
            shown = time.monotonic()
    return {"steps": task.steps}


def evaluate(rl_run: RlRun, evaluation: TrajectoryEvaluation) -> Record:
    """One point of the trajectory; it leaves no trace in training."""
    with rl_run.accelerator.autocast():
        return evaluation.measure(rl_run.policy, rl_run.sft)


def train_step(rl_run: RlRun, step: int, metrics: MetricsLog, context: Context) -> Record:
    """Lines 6 to 9, once. Returns the step's metrics; raises NumericsError before a bad number reaches the weights."""
    training = rl_run.task.training
    torch.manual_seed(derived_seed(rl_run.seed, "step", step))  # nothing here draws from it; a model's own code might
    start = time.perf_counter()

    # line 6: sample
    rollouts = sample_rollouts(rl_run, step)
    generated = time.perf_counter()

    # line 7: score, and the KL term of the whole completion
    rewards = reward_rollouts(rl_run, rollouts)
    scored = time.perf_counter()

    # line 8: one Adam step along advantage * grad log pi(y|x)
    advantage_B = ADVANTAGES[training.baseline](rewards.reward_B, training.num_generations)
    loss, grad_norm = policy_gradient(rl_run, rollouts.drawn, advantage_B)
    learning_rate = warmed_up(float(training.optimizer.learning_rate), step, training.optimizer.warmup_steps)
    record = record_of(rl_run, step, rollouts, rewards, loss=loss, gradientNorm=grad_norm, learningRate=learning_rate)
    stop_at_bad_numbers(context, record, rollouts, rewards)
    for group in rl_run.optimizer.param_groups:
        group["lr"] = learning_rate
    rl_run.optimizer.step()

    # line 9: the anchor follows
    if training.anchor is Anchor.EMA and rl_run.anchor is not None:
        update_anchor_(rl_run.anchor.parameters(), rl_run.policy.parameters(), ema_rate=float(training.ema_rate))
    updated = time.perf_counter()
    metrics.add_timing(
        {
            "step": step,
            "generateSeconds": generated - start,
            "scoreSeconds": scored - generated,
            "updateSeconds": updated - scored,
            "tokensPerSecond": sum(rollouts.drawn.lengths) / (updated - start),
        }
    )
    return record


if __name__ == "__main__":
    run(main)
