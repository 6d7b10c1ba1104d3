"""First attempts of the stages of a run, as the planner would order them, with made-up digests."""

from __future__ import annotations

import hashlib

from tests.builders.world import imported
from warpctl.plan.actions import Start
from warpctl.plan.stages import Stage, stages
from warpctl.spec.stage_input import InputArtifact
from warpctl.spec.warp_run import WarpRun

UID = "5d9b6f0e-0000-4000-8000-000000000001"


def starts(run: WarpRun, *, number: int = 1) -> dict[str, Start]:
    """Attempt `number` of every stage of the run, by stage id."""
    graph = stages(run, imported(run))
    return {each.id: start_of(each, graph.stages, number=number) for each in graph.stages.values()}


def start_of(stage: Stage, graph: dict[str, Stage], *, number: int = 1) -> Start:
    inputs = []
    for each in stage.inputs:
        source = graph[each.stage_id]
        digest = hashlib.sha256(source.key.encode()).hexdigest()
        inputs.append(
            InputArtifact(
                role=each.role, kind=source.kind, key=source.key, manifest_digest=digest, content_digest=digest[::-1]
            )
        )
    return Start(stage, number, tuple(inputs), stage.task)
