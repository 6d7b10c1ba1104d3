"""Fill an Evaluator from a stage's inputs: SFT policy, prompts, rewards; and the weights of a source, to be read."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch

from warpctl.spec.stage_input import EvaluateTask, InputArtifact
from warpctl.storage.artifact import Artifact, weights_prefix
from warpctl.workers.harness import Context
from warpctl.workers.point_evaluation import Evaluator, Source
from warpctl.workers.policies import arithmetic, load_policy, read_policy
from warpctl.workers.prompt_set import load_prompts
from warpctl.workers.rewards import load_scorers


def load_evaluator(context: Context, task: EvaluateTask) -> Evaluator:
    """The SFT policy on the stage's device, the first numPrompts evaluation prompts, and a scorer per reward."""
    stage, store = context.stage_input, context.store
    torch.set_num_threads(stage.resources.threads)
    device = torch.device("cuda" if stage.resources.gpus else "cpu")
    sft, vocabulary = load_policy(Artifact.of(store, stage.input("sft")), device=device)
    prompts = load_prompts(stage, store, vocabulary.tokenizer)[1]
    count = task.num_prompts
    if count is not None and count > len(prompts):
        context.log.warning("fewer evaluation prompts than evaluation.numPrompts", wanted=count, found=len(prompts))
    return Evaluator(
        task,
        sft,
        vocabulary=vocabulary,
        prompts=replace(prompts, texts=prompts.texts[:count], tokens=prompts.tokens[:count]),
        scorers=load_scorers((*task.rewards, *task.held_out_rewards), stage, store, device=device),
        arithmetic=lambda: arithmetic(task.training.precision, device),
    )


def source_of(context: Context, source: InputArtifact) -> Source:
    """The weights of a source, which are read from the store when they are asked for, straight into what the points are made of."""
    return functools.partial(read_policy, Artifact.of(context.store, source), weights_prefix(source))
