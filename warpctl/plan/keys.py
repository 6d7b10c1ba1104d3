"""Stage keys: sha256 over the canonical JSON of a hand-written projection per stage kind.

A projection holds what changes the outcome, and the identity of the inputs: the content digest of what was imported, the key of
what is computed. Resources, retries, labels, images and cadences are not in it. Two rules keep keys still between releases, and
golden tests check them: decimals have one spelling, and a field that is added later is left out while it has its default.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from warpctl.spec.base import UNLIMITED, SpecModel
from warpctl.spec.models import CheckpointReward, FunctionReward, HeldOutSplit, HttpReward, Prompts, Reward
from warpctl.spec.training import Merge, ServingCopy, Training
from warpctl.spec.warp_run import Evaluation

Projection = Mapping[str, Any]


def digest(projection: Projection) -> str:
    """The key of a projection: 64 hex digits."""
    canonical = json.dumps(projection, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def import_key(*, what: str, uri: str, revision: str, refresh_nonce: str) -> str:
    """Key of an import: where it comes from, not what is there; everything behind it uses the content digest."""
    return digest({"kind": "import", "what": what, "uri": uri, "revision": revision, "refresh": refresh_nonce})


def rl_key(  # one argument per thing that changes the outcome
    *,
    algorithm_version: str,
    seed: int,
    iteration: int,
    member: int,
    steps: int,
    init: str,
    sft: str,
    training: Training,
    prompts: Projection,
    rewards: Sequence[Projection],
) -> str:
    """Key of one RL run; `init` and `sft` are input identities (`content:...` or `key:...`)."""
    return digest(
        {
            "kind": "rl",
            "algorithmVersion": algorithm_version,
            "seed": seed,
            "iteration": iteration,
            "member": member,
            "steps": steps,
            "init": init,
            "sft": sft,
            "training": training_projection(training),
            "prompts": prompts,
            "rewards": list(rewards),
        }
    )


def merge_key(*, algorithm_version: str, merge: Merge, init: str, members: Sequence[str]) -> str:
    """Key of a merge; the members' order is part of it, since SLERP of more than two depends on it."""
    settings = _settings(merge, ("granularity", "order", "liti_rate"))
    if merge.serving_copy is not ServingCopy.NO_COPY:  # added later
        settings |= _settings(merge, ("serving_copy",))
    return digest(
        {
            "kind": "merge",
            "algorithmVersion": algorithm_version,
            "merge": settings,
            "init": init,
            "members": list(members),
        }
    )


def evaluate_key(  # one argument per thing that changes the outcome
    *,
    algorithm_version: str,
    source: str,
    sft: str,
    points: Sequence[str],
    evaluation: Evaluation,
    training: Training,
    prompts: Projection,
    evaluation_prompts: str,
    rewards: Sequence[Projection],
    held_out_rewards: Sequence[Projection],
) -> str:
    """Key of the evaluation of one iteration or control: which points, judged by what, on which prompts."""
    return digest(
        {
            "kind": "evaluate",
            "algorithmVersion": algorithm_version,
            "source": source,
            "sft": sft,
            "points": list(points),
            "evaluation": _settings(evaluation, ("num_prompts", "num_generations", "seed")),
            "sampling": _settings(training.sampling, ("temperature", "top_p", "max_new_tokens")),
            "precision": str(training.precision),
            "prompts": prompts,
            "evaluationPrompts": evaluation_prompts,
            "rewards": list(rewards),
            "heldOutRewards": list(held_out_rewards),
        }
    )


def report_key(*, run: str, evaluations: Sequence[str], evaluation: Evaluation) -> str:
    """Key of a report: a view of one run, made anew whenever what it shows, or how, has changed."""
    settings = _settings(evaluation, ("confidence_level", "hypervolume"))
    return digest({"kind": "report", "run": run, "evaluations": list(evaluations), "evaluation": settings})


def training_projection(training: Training) -> Projection:
    """The settings of an RL run that change its outcome; `steps` is projected apart, per iteration."""
    kept = ("anchor", "baseline", "batch_size", "num_generations", "optimizer", "sampling")
    projection = _settings(training, (*kept, "reward_shaping", "precision", "max_kl"))
    # What a word says today was null when keys were made first, and keys never move.
    for holder, name in ((projection, "maxKl"), (projection["optimizer"], "maxGradNorm")):
        if holder[name] == UNLIMITED:
            holder[name] = None
    # The rate of an average that is never formed, and the weight of a term that is not there, change nothing.
    if training.anchor != "NoAnchor":
        projection["klCoefficient"] = _settings(training, ("kl_coefficient",))["klCoefficient"]
    if training.anchor == "Ema":
        projection["emaRate"] = _settings(training, ("ema_rate",))["emaRate"]
    return projection


def prompts_projection(prompts: Prompts, content: str) -> Projection:
    """The training prompts: their content, how they are read, and what is held out of them."""
    projection = _settings(prompts, ("format", "column", "template", "max_prompt_tokens", "long_prompts"))
    held_out = prompts.evaluation_split.count if isinstance(prompts.evaluation_split, HeldOutSplit) else 0
    return {**projection, "content": content, "heldOut": held_out}


def reward_projection(reward: Reward, content: str) -> Projection:
    """A reward's identity: a checkpoint by content, a function or an endpoint by the revision that its owner names."""
    projection = _settings(reward, ("type", "name", "weight"))
    match reward:
        case CheckpointReward():
            return {**projection, "content": content}
        case FunctionReward():
            return {**projection, "function": reward.function, "revision": reward.revision}
        case HttpReward():
            return {**projection, "revision": reward.revision}


def _settings(model: SpecModel, fields: Sequence[str]) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, include=set(fields))
