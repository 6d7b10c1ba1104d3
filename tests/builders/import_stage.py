"""An import stage as the planner would start it, run in this process."""

from __future__ import annotations

from typing import Literal

from tests.builders.contexts import context_of
from warpctl import artifacts
from warpctl.spec.stage_input import ImportTask, StageInput, StageKind
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store
from warpctl.workers.import_ import main

KEY = "0" * 64


def import_stage(
    storage: str, uri: str, *, what: Literal["Model", "Prompts"] = "Model", revision: str = "main", attempt: str = "a1"
) -> StageInput:
    """The stage input of one attempt."""
    return StageInput(
        stage_id="import/sft",
        kind=StageKind.IMPORT,
        key=KEY,
        attempt_id=attempt,
        namespace="default",
        run="test",
        storage=storage,
        task=ImportTask(what=what, uri=uri, revision=revision),
    )


def run_import(stage: StageInput) -> Artifact:
    """Run the worker's main and load what it published."""
    context = context_of(stage)
    main(context)
    return Artifact.load(context.store, "import", KEY)


def is_committed(storage: str) -> bool:
    return Store.open(storage).stat(artifacts.marker("import", KEY)) is not None
