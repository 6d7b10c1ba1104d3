"""One RL run: Algorithm 1 of WARP (arXiv 2406.16768v1), lines 4 to 10. `python -m warpctl.workers.rl` in a pod or a shell.

    4   theta, anchor <- theta_init                                the anchor restarts with every RL run
    5   for t = 1 ... T
    6     sample completions y ~ pi_theta(. | x) of prompts x      rl/sampling.py
    7     r_beta(y) <- r(x, y) - beta log(pi_theta(y|x) / pi_anchor(y|x))            rl/reward.py
    8     theta <- Adam(theta, (r_beta(y) - baseline) grad log pi_theta(y|x))        rl/advantage.py, rl/loss.py
    9     anchor <- (1 - mu) anchor + mu theta                     rl/anchor.py
    10  publish theta, and never the anchor

What the paper leaves open and what is chosen here: a fresh Adam for every run, linear warm-up from 0, then a constant
rate; gradient clipping by global norm; a baseline; dropout off; one optimizer step per batch, on-policy.
Left out: a critic, importance ratios, PPO's clipping, sequence packing, several processes.

A run that is stopped or killed goes on from its newest resume state to the same bits (one CPU thread): nothing random is
carried from step to step, and metrics.jsonl is kept with the weights.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from warpctl import artifacts
from warpctl.errors import CorruptError, InputError, Interrupted, NumericsError, WarpctlError
from warpctl.rl.advantage import ADVANTAGES
from warpctl.rl.anchor import update_anchor_
from warpctl.rl.logprobs import completion_logprobs, micro_batched_logprobs, padded_logprobs
from warpctl.rl.loss import reinforce_loss, warmed_up
from warpctl.rl.randomness import derived_seed, prompt_rows
from warpctl.rl.reward import kl_estimate, kl_reward, shaped_score, weighted_score
from warpctl.rl.sampling import Completions, sample
from warpctl.spec.stage_input import RlTask
from warpctl.spec.training import Anchor, Precision
from warpctl.storage.artifact import Artifact, weights_prefix
from warpctl.workers import resume_state
from warpctl.workers.harness import Context, run
from warpctl.workers.metrics import METRICS_FILE, MetricsLog
from warpctl.workers.policies import Vocabulary, load_policy
from warpctl.workers.policy_files import publish_policy
from warpctl.workers.prompt_set import PromptSet, load_prompts
from warpctl.workers.resume_state import ResumeState
from warpctl.workers.rewards import Scorer, load_scorers
from warpctl.workers.trajectory import TrajectoryEvaluation

MIXED_PRECISION = {Precision.FLOAT32: "no", Precision.BFLOAT16: "bf16"}
SHOW_SECONDS = 10.0
"""New metrics are shown in the store at least this often."""


@dataclass
class RlRun:
    """Everything that the steps of one RL run work on."""

    task: RlTask
    accelerator: Accelerator
    policy: Any
    """theta: float32 master weights."""
    anchor: Any | None
    """The EMA of the policy (float32), the SFT policy, or None without a KL term."""
    sft: Any
    """Origin of the KL axis: never trained."""
    optimizer: torch.optim.Adam
    vocabulary: Vocabulary
    prompts: PromptSet
    scorers: dict[str, Scorer]
    seed: int
    """Of this iteration and member: members differ in their prompts' order and in sampling, and in nothing else."""

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """score_B: the weighted sum of the rewards."""
        scores = {name: scorer(prompts, completions) for name, scorer in self.scorers.items()}
        return weighted_score(scores, {reward.name: float(reward.weight) for reward in self.task.rewards})


def main(context: Context) -> None:
    """Train, save, obey, publish."""
    stage, store = context.stage_input, context.store
    if not isinstance(stage.task, RlTask):
        raise InputError(f"stage {stage.stage_id} is a {stage.task.kind}, not an RL run")
    task, training = stage.task, stage.task.training
    torch.set_num_threads(stage.resources.threads)
    init = Artifact.of(store, stage.input("init"))
    init_prefix = weights_prefix(stage.input("init"))

    rl_run, evaluation_prompts = load(context, task, init, init_prefix)
    evaluation = TrajectoryEvaluation(
        prompts=evaluation_prompts,
        num_prompts=training.evaluation.num_prompts,
        seed=task.seed,
        sampling=training.sampling,
        vocabulary=rl_run.vocabulary,
        score=rl_run.score,
    )

    def evaluate() -> dict[str, float]:
        with rl_run.accelerator.autocast():
            return evaluation.measure(rl_run.policy, rl_run.sft)

    first_step, metrics = restore(context, rl_run)
    outcome = train(context, rl_run, evaluation, metrics, first_step=first_step)

    # line 10
    publish_policy(context.publication, rl_run.policy, init, init_prefix)
    context.publication.write_file(METRICS_FILE, metrics.to_bytes())
    context.publication.commit(outcome=outcome, gpu_seconds=context.gpu_seconds())
    try:
        resume_state.drop_all(store, stage)
    except (WarpctlError, OSError) as error:  # gc takes what stays
        context.log.warning("resume states not dropped", error=str(error))


def train(
    context: Context, rl_run: RlRun, evaluation: TrajectoryEvaluation, metrics: MetricsLog, *, first_step: int
) -> dict[str, Any]:
    """Line 5: the steps after `first_step`. Returns the outcome; raises Interrupted once the state is saved."""
    task, training = rl_run.task, rl_run.task.training
    if not metrics.lines and evaluation.num_prompts:
        metrics.add({"step": 0, **evaluate(rl_run, evaluation)})
    saved, shown = first_step, time.monotonic()
    for step in range(first_step + 1, task.steps + 1):
        if context.stop.is_set():
            if saved < step - 1:
                save(context, rl_run, step - 1, metrics)
            metrics.show()
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
        context.report_progress(step, task.steps, "steps", score=record["score"], kl=record["kl/sft"])
        if is_too_far:
            metrics.show()
            context.log.warning("ended early", step=step, reason="running KL to SFT reached training.maxKl")
            return {"steps": step, "endedEarly": "MaxKl"}
        if step % training.resume_state.every_steps == 0 and not is_last:
            save(context, rl_run, step, metrics)
            saved = step
        if is_last or saved == step or time.monotonic() - shown > SHOW_SECONDS:
            metrics.show()
            shown = time.monotonic()
    return {"steps": task.steps}


def evaluate(rl_run: RlRun, evaluation: TrajectoryEvaluation) -> dict[str, float]:
    """One point of the trajectory; it leaves no trace in training."""
    with rl_run.accelerator.autocast():
        return evaluation.measure(rl_run.policy, rl_run.sft)


def load(context: Context, task: RlTask, init: Artifact, init_prefix: str) -> tuple[RlRun, PromptSet]:
    """Line 4: policy and anchor start from the iteration's init. Returns the run and its evaluation prompts."""
    stage, store, training = context.stage_input, context.store, task.training
    accelerator = Accelerator(cpu=stage.resources.gpus == 0, mixed_precision=MIXED_PRECISION[training.precision])
    policy, vocabulary = load_policy(init, init_prefix, device=accelerator.device)
    sft, _ = load_policy(Artifact.of(store, stage.input("sft")), device=accelerator.device)
    sft.requires_grad_(requires_grad=False)
    anchor = None
    if training.anchor is Anchor.EMA:
        anchor = copy.deepcopy(policy).requires_grad_(requires_grad=False)
    elif training.anchor is Anchor.SFT:
        anchor = sft
    prompts, evaluation_prompts = load_prompts(stage, store, vocabulary.tokenizer)
    context.log.info(
        "prompts",
        training=len(prompts),
        evaluation=len(evaluation_prompts),
        dropped=prompts.num_dropped,
        cut=prompts.num_cut,
    )
    optimizer = torch.optim.Adam(
        policy.parameters(),
        lr=float(training.optimizer.learning_rate),
        betas=(float(training.optimizer.beta1), float(training.optimizer.beta2)),
        eps=float(training.optimizer.epsilon),
    )
    rl_run = RlRun(
        task=task,
        accelerator=accelerator,
        policy=policy,
        anchor=anchor,
        sft=sft,
        optimizer=optimizer,
        vocabulary=vocabulary,
        prompts=prompts,
        scorers=load_scorers(task.rewards, stage, store, device=accelerator.device),
        seed=derived_seed(task.seed, "rl", task.iteration, task.member),
    )
    return rl_run, evaluation_prompts


def train_step(rl_run: RlRun, step: int, metrics: MetricsLog, context: Context) -> dict[str, float]:
    """Lines 6 to 9, once. Returns the step's metrics; raises NumericsError before a bad number reaches the weights."""
    training, policy = rl_run.task.training, rl_run.policy
    temperature, pad_token = float(training.sampling.temperature), rl_run.vocabulary.pad_token
    micro_batch = training.micro_batch_size or training.batch_size
    num_prompts = training.batch_size // training.num_generations
    torch.manual_seed(derived_seed(rl_run.seed, "step", step))  # nothing here draws from it; a model's own code might
    start = time.perf_counter()

    # line 6: sample
    prompt_rows_of_step = prompt_rows(
        len(rl_run.prompts),
        first=(step - 1) * num_prompts,
        count=num_prompts,
        seed=derived_seed(rl_run.seed, "prompts"),
    )
    rows = [row for row in prompt_rows_of_step for _ in range(training.num_generations)]  # K of a prompt side by side
    generator = torch.Generator(device=policy.device).manual_seed(derived_seed(rl_run.seed, "sampling", step))
    with rl_run.accelerator.autocast():
        drawn = sample(
            policy,
            [rl_run.prompts.tokens[row] for row in rows],
            sampling=training.sampling,
            end_tokens=rl_run.vocabulary.end_tokens,
            pad_token=pad_token,
            generator=generator,
        )
    texts = [rl_run.vocabulary.decode(tokens) for tokens in drawn.tokens]
    generated = time.perf_counter()

    # line 7: score, and the KL term of the whole completion
    score_B = rl_run.score([rl_run.prompts.texts[row] for row in rows], texts)
    length_B = torch.tensor(drawn.lengths, dtype=torch.float32)
    shaped_B = shaped_score(score_B, length_B, torch.tensor(drawn.is_complete), shaping=training.reward_shaping)

    def logprobs_of(model: Any) -> Tensor:
        with rl_run.accelerator.autocast():
            return micro_batched_logprobs(
                model,
                drawn.prompts,
                drawn.tokens,
                temperature=temperature,
                pad_token=pad_token,
                micro_batch=micro_batch,
            ).cpu()

    # in float32 decoding and a forward pass agree to rounding; in bfloat16 only one pass compares with another
    is_exact = training.precision is Precision.FLOAT32
    policy_BT = padded_logprobs(drawn.logprobs, torch.device("cpu")) if is_exact else logprobs_of(policy)
    in_completion_BT = torch.arange(policy_BT.shape[1])[None, :] < length_B[:, None]
    sft_BT = logprobs_of(rl_run.sft)
    sft_kl_B = kl_estimate(policy_BT, sft_BT, in_completion_BT)
    anchor_kl_B = torch.zeros_like(sft_kl_B)
    if rl_run.anchor is not None:
        anchor_BT = sft_BT if rl_run.anchor is rl_run.sft else logprobs_of(rl_run.anchor)
        anchor_kl_B = kl_estimate(policy_BT, anchor_BT, in_completion_BT)
    reward_B = kl_reward(shaped_B, anchor_kl_B, kl_coefficient=float(training.kl_coefficient))
    scored = time.perf_counter()

    # line 8: one Adam step along advantage * grad log pi(y|x)
    advantage_B = ADVANTAGES[training.baseline](reward_B, training.num_generations)
    learning_rate = warmed_up(float(training.optimizer.learning_rate), step, training.optimizer.warmup_steps)
    loss, grad_norm = backward(rl_run, drawn, advantage_B, micro_batch)
    record: dict[str, float] = {
        "step": step,
        "score": score_B.mean().item(),
        "scoreDeviation": score_B.std(correction=0).item(),
        "reward": reward_B.mean().item(),
        **({} if rl_run.anchor is None else {"kl/anchor": anchor_kl_B.mean().item()}),
        "kl/sft": sft_kl_B.mean().item(),
        "length": length_B.mean().item(),
        "truncatedShare": 1 - sum(drawn.is_complete) / len(rows),
        # on-policy, the mean of -log pi is an unbiased estimate of the entropy per token
        "entropy": -(policy_BT.sum() / length_B.sum()).item(),
        "loss": loss,
        "gradientNorm": grad_norm,
        "learningRate": learning_rate,
    }
    bad = [name for name, value in record.items() if not abs(value) < float("inf")]
    if bad:
        dump_failure(context, record, drawn, texts, reward_B)
        raise NumericsError(
            f"step {step}: {', '.join(bad)} not finite; the weights are those of step {step - 1}",
            hint="the batch is dumped beside the attempt's log; lower the learning rate or raise klCoefficient",
        )
    for group in rl_run.optimizer.param_groups:
        group["lr"] = learning_rate
    rl_run.optimizer.step()

    # line 9: the anchor follows
    if training.anchor is Anchor.EMA and rl_run.anchor is not None:
        update_anchor_(rl_run.anchor.parameters(), policy.parameters(), ema_rate=float(training.ema_rate))
    updated = time.perf_counter()
    metrics.add_timing(
        {
            "step": step,
            "generateSeconds": generated - start,
            "scoreSeconds": scored - generated,
            "updateSeconds": updated - scored,
            "tokensPerSecond": sum(drawn.lengths) / (updated - start),
        }
    )
    return record


def backward(rl_run: RlRun, drawn: Completions, advantage_B: Tensor, micro_batch: int) -> tuple[float, float]:
    """Gradients of the batch, gathered micro-batch by micro-batch. Returns (loss, gradient norm before clipping)."""
    training, policy = rl_run.task.training, rl_run.policy
    rl_run.optimizer.zero_grad(set_to_none=True)
    loss_sum = 0.0
    for start in range(0, len(drawn.tokens), micro_batch):
        part = slice(start, start + micro_batch)
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
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), float("inf") if limit is None else float(limit))
    return loss_sum, norm.item()


def save(context: Context, rl_run: RlRun, step: int, metrics: MetricsLog) -> None:
    """A resume state after `step`."""
    named = dict(rl_run.policy.named_parameters())
    tensors = {"policy": {name: parameter.detach() for name, parameter in named.items()}}
    if rl_run.anchor is not None and rl_run.anchor is not rl_run.sft:
        tensors["anchor"] = {name: parameter.detach() for name, parameter in rl_run.anchor.named_parameters()}
    state = rl_run.optimizer.state
    tensors["optimizer"] = {
        f"{moment}/{name}": state[parameter][moment]
        for name, parameter in named.items()
        if parameter in state
        for moment in ("exp_avg", "exp_avg_sq")
    }
    resume_state.save(
        context.store, context.stage_input, ResumeState(step=step, tensors=tensors, metrics=metrics.lines)
    )
    context.log.info("resume state", step=step)


@torch.no_grad()
def restore(context: Context, rl_run: RlRun) -> tuple[int, MetricsLog]:
    """Go to the newest committed resume state of any attempt. Returns its step (0 without one) and its metrics."""
    for found in resume_state.load_newest(context.store, context.stage_input):
        if isinstance(found, CorruptError):
            context.log.warning("resume state passed over", error=found.message)
            continue
        named = dict(rl_run.policy.named_parameters())
        for name, parameter in named.items():
            parameter.copy_(found.tensors["policy"][name])
        if "anchor" in found.tensors and rl_run.anchor is not None:
            for name, parameter in rl_run.anchor.named_parameters():
                parameter.copy_(found.tensors["anchor"][name])
        for key, moment in found.tensors["optimizer"].items():
            kind, _, name = key.partition("/")
            state = rl_run.optimizer.state[named[name]]
            state["step"] = torch.tensor(float(found.step))
            state[kind] = torch.empty_like(named[name]).copy_(moment)
        context.log.info("resumed", step=found.step)
        return found.step, MetricsLog(context.store, context.stage_input, found.metrics)
    return 0, MetricsLog(context.store, context.stage_input, [])


def dump_failure(
    context: Context, record: dict[str, float], drawn: Completions, texts: list[str], reward_B: Tensor
) -> None:
    """Leave step and batch of a numeric failure with the attempt."""
    stage = context.stage_input
    path = artifacts.failure(stage.kind, stage.key, stage.attempt_id)
    body = {
        "metrics": {name: repr(value) for name, value in record.items()},
        "prompts": drawn.prompts,
        "completions": drawn.tokens,
        "texts": texts,
        "rewards": [repr(value) for value in reward_B.tolist()],
    }
    context.store.write(path, json.dumps(body, indent=1).encode())
    context.log.error("numeric failure", dump=context.store.uri(path))


if __name__ == "__main__":
    run(main)
