"""What the worker of an attempt is told."""

from __future__ import annotations

from warpctl.plan.actions import Start
from warpctl.spec.stage_input import Resources, StageInput
from warpctl.spec.warp_run import WarpRun


def stage_input(run: WarpRun, start: Start, *, attempt_id: str, storage: str, resources: Resources) -> StageInput:
    """The StageInput of one attempt: the same for a process and a pod."""
    return StageInput(
        stage_id=start.stage.id,
        kind=start.stage.kind,
        key=start.stage.key,
        attempt_id=attempt_id,
        namespace=run.metadata.namespace,
        run=run.metadata.name,
        storage=storage,
        resources=resources,
        inputs=start.inputs,
        task=start.task,
    )
