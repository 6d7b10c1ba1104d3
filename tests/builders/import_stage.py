"""An import stage as the planner would start it, run in this process."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import structlog

from warpctl import artifacts
from warpctl.spec.stage_input import ImportTask, StageInput, StageKind
from warpctl.storage.artifact import Artifact
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.workers.harness import Context
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


def context_of(stage: StageInput) -> Context:
    """What the harness would give to the worker."""
    store = Store.open(stage.storage)
    publication = Publication(store, stage, now=lambda: datetime.now(UTC))
    return Context(stage, store, publication, structlog.stdlib.get_logger())


def run_import(stage: StageInput) -> Artifact:
    """Run the worker's main and load what it published."""
    context = context_of(stage)
    main(context)
    return Artifact.load(context.store, "import", KEY)


def is_committed(storage: str) -> bool:
    return Store.open(storage).stat(artifacts.marker("import", KEY)) is not None
