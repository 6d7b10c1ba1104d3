"""A merge stage as the planner would start it, run in this process on small checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from tests.builders.checkpoints import publish
from tests.builders.contexts import context_of
from warpctl.spec.merge_method import Granularity, SlerpOrder
from warpctl.spec.stage_input import InputArtifact, MergeTask, StageInput, StageKind
from warpctl.spec.training import ServingCopy
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store
from warpctl.workers.merge import main

KEY = "1" * 64


def inputs_of(store: Store, models: Sequence[Mapping[str, bytes]]) -> tuple[InputArtifact, ...]:
    """Publish init and members; the stage inputs that name them."""
    roles = ["init", *(f"member/{number}" for number in range(1, len(models)))]
    return tuple(
        publish(store, files, key=f"{number:064d}", role=role)
        for number, (role, files) in enumerate(zip(roles, models, strict=True))
    )


def merge_stage(
    storage: str,
    inputs: Sequence[InputArtifact],
    *,
    granularity: Granularity = Granularity.LAYER,
    order: SlerpOrder = SlerpOrder.PAPER,
    liti_rate: str = "0.3",
    serving_copy: ServingCopy = ServingCopy.NO_COPY,
    attempt: str = "a1",
) -> StageInput:
    """The stage input of one attempt."""
    return StageInput(
        stage_id="merge/1",
        kind=StageKind.MERGE,
        key=KEY,
        attempt_id=attempt,
        namespace="default",
        run="test",
        storage=storage,
        inputs=tuple(inputs),
        task=MergeTask(granularity=granularity, order=order, liti_rate=Decimal(liti_rate), serving_copy=serving_copy),
    )


def run_merge(stage: StageInput, **limits: int) -> Artifact:
    """Run the worker's main and load what it published."""
    context = context_of(stage)
    main(context, **limits)
    return Artifact.load(context.store, "merge", stage.key)


def merge_files(storage: str, models: Sequence[Mapping[str, bytes]], **settings: Any) -> Artifact:
    """Publish the models (init first) and merge them."""
    inputs = inputs_of(Store.open(storage), models)
    return run_merge(merge_stage(storage, inputs, **settings))
