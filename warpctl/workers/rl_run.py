"""What the steps of one RL run work on: loaded at its start, saved and restored as resume states."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from warpctl.errors import CorruptError
from warpctl.rl.randomness import derived_seed
from warpctl.rl.reward import weighted_score
from warpctl.spec.stage_input import RlTask
from warpctl.spec.training import Anchor, Precision
from warpctl.storage.artifact import Artifact, weights_prefix
from warpctl.workers import resume_state
from warpctl.workers.harness import Context
from warpctl.workers.metrics import MetricsLog
from warpctl.workers.policies import Vocabulary, load_policy
from warpctl.workers.prompt_set import PromptSet, load_prompts
from warpctl.workers.resume_state import ResumeState
from warpctl.workers.rewards import Scorer, load_scorers
from warpctl.workers.tracking import start_tracker

MIXED_PRECISION = {Precision.FLOAT32: "no", Precision.BFLOAT16: "bf16"}


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
    evaluation_prompts: PromptSet
    scorers: dict[str, Scorer]
    seed: int
    """Of this iteration and member: members differ in their prompts' order and in sampling, and in nothing else."""

    @property
    def micro_batch(self) -> int:
        """Completions per forward and backward pass."""
        return self.task.training.micro_batch_size or self.task.training.batch_size

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """score_B: the weighted sum of the rewards."""
        scores = {name: scorer(prompts, completions) for name, scorer in self.scorers.items()}
        return weighted_score(scores, {reward.name: float(reward.weight) for reward in self.task.rewards})


def load_run(context: Context, task: RlTask) -> RlRun:
    """Line 4: policy and anchor start from the iteration's init."""
    stage, store, training = context.stage_input, context.store, task.training
    accelerator = Accelerator(cpu=stage.resources.gpus == 0, mixed_precision=MIXED_PRECISION[training.precision])
    init, sft_input = stage.input("init"), stage.input("sft")
    policy, vocabulary = load_policy(Artifact.of(store, init), weights_prefix(init), device=accelerator.device)
    # the first iteration starts from the SFT policy: nobody reads it twice
    is_sft = (init.key, init.manifest_digest) == (sft_input.key, sft_input.manifest_digest)
    sft = copy.deepcopy(policy) if is_sft else load_policy(Artifact.of(store, sft_input), device=accelerator.device)[0]
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
        fused=True,  # one pass over the weights instead of ten
    )
    return RlRun(
        task=task,
        accelerator=accelerator,
        policy=policy,
        anchor=anchor,
        sft=sft,
        optimizer=optimizer,
        vocabulary=vocabulary,
        prompts=prompts,
        evaluation_prompts=evaluation_prompts,
        scorers=load_scorers(task.rewards, stage, store, device=accelerator.device),
        seed=derived_seed(task.seed, "rl", task.iteration, task.member),
    )


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
        context.store,
        context.stage_input,
        ResumeState(step=step, tensors=tensors, metrics=metrics.lines, tracker=metrics.tracker.state()),
    )
    context.log.info("resume state", step=step)


@torch.no_grad()
def restore(context: Context, rl_run: RlRun) -> tuple[int, MetricsLog]:
    """Go to the newest committed resume state of any attempt. Returns its step (0 without one) and its metrics."""
    stage, store, log = context.stage_input, context.store, context.log
    for found in resume_state.load_newest(store, stage):
        if isinstance(found, CorruptError):
            log.warning("resume state passed over", error=found.message)
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
        log.info("resumed", step=found.step)
        tracker = start_tracker(rl_run.task.tracking, stage, store, log, resumed=found.tracker)
        return found.step, MetricsLog(store, stage, found.metrics, tracker=tracker)
    tracker = start_tracker(rl_run.task.tracking, stage, store, log, resumed=None)
    return 0, MetricsLog(store, stage, [], tracker=tracker)
