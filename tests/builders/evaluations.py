"""Committed evaluations in a store, as evaluate workers would leave them, for tests of the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from warpctl import artifacts
from warpctl.reports.estimate import Evaluated
from warpctl.reports.evaluation import POINTS_FILE, write_names
from warpctl.spec.stage_input import (
    EvaluateTask,
    ImportTask,
    InputArtifact,
    MergeTask,
    RlTask,
    StageInput,
    StageKind,
    Task,
)
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store

TRAINING = {"steps": [4]}
PROMPTS = {"uri": "prompts.jsonl"}
REWARDS = [{"type": "Function", "name": "learned", "function": "a:b", "revision": "1"}]


def evaluate_task(**settings: object) -> EvaluateTask:
    """An EvaluateTask with harmless defaults."""
    return EvaluateTask.model_validate(
        {
            "algorithmVersion": "1",
            "iteration": 1,
            "points": [],
            "seed": 0,
            "numPrompts": None,
            "numGenerations": 1,
            "training": TRAINING,
            "prompts": PROMPTS,
            "rewards": REWARDS,
            "heldOutRewards": [],
            **settings,
        }
    )


def publish_stage(  # everything that a manifest says
    store: Store,
    *,
    stage_id: str,
    kind: StageKind,
    role: str,
    task: Task,
    files: dict[str, bytes],
    inputs: Sequence[InputArtifact] = (),
) -> InputArtifact:
    """Commit an artifact; the input that names it."""
    stage = StageInput(
        stage_id=stage_id,
        kind=kind,
        key=stage_id.replace("/", "-"),
        attempt_id="a1",
        namespace="default",
        run="demo",
        storage=store.root,
        inputs=tuple(inputs),
        task=task,
    )
    publication = Publication(store, stage)
    for name, data in files.items():
        publication.write_file(name, data)
    manifest = publication.commit()
    return InputArtifact(
        role=role,
        kind=kind,
        key=stage.key,
        manifest_digest=manifest.digest,
        content_digest=manifest.content_digest,
    )


def publish_sft(store: Store) -> InputArtifact:
    """A tiny SFT policy, as an import."""
    task = ImportTask(what="Model", uri="sft", revision="main")
    return publish_stage(
        store,
        stage_id="import/sft",
        kind=StageKind.IMPORT,
        role="sft",
        task=task,
        files={"model.safetensors": b"x" * 1000},
    )


def publish_rl(store: Store, metrics: bytes, *, iteration: int = 1, member: int = 1) -> InputArtifact:
    """An RL run with these metrics."""
    task = RlTask.model_validate(
        {
            "algorithmVersion": "1",
            "seed": 0,
            "iteration": iteration,
            "member": member,
            "steps": 4,
            "training": TRAINING,
            "prompts": PROMPTS,
            "rewards": REWARDS,
        }
    )
    return publish_stage(
        store,
        stage_id=f"rl/{iteration}/{member}",
        kind=StageKind.RL,
        role=f"member/{member}",
        task=task,
        files={"metrics.jsonl": metrics},
    )


def publish_merge(store: Store, document: dict[str, Any], *, iteration: int = 1) -> InputArtifact:
    """A merge with this merge.json."""
    return publish_stage(
        store,
        stage_id=f"merge/{iteration}",
        kind=StageKind.MERGE,
        role="merge",
        task=MergeTask.model_validate({"granularity": "Layer", "order": "Paper", "litiRate": "0.3"}),
        files={"merge.json": json.dumps(document).encode()},
    )


def publish_evaluation(
    store: Store, evaluated: Sequence[Evaluated], *, stage_id: str, inputs: Sequence[InputArtifact] = ()
) -> InputArtifact:
    """The points and the points.json that names them."""
    for named, point in evaluated:
        store.create_once(artifacts.point(named.point_key), point.to_bytes())
    return publish_stage(
        store,
        stage_id=stage_id,
        kind=StageKind.EVALUATE,
        role=f"evaluate/{stage_id}",
        task=evaluate_task(),
        files={POINTS_FILE: write_names([named for named, _ in evaluated])},
        inputs=inputs,
    )
