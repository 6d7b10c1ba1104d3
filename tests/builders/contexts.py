"""What the harness gives a worker, and publications of import stages, for tests that call them in this process."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from warpctl.errors import Interrupted
from warpctl.spec.stage_input import ImportTask, InputArtifact, StageInput, StageKind
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.workers.harness import Context, StopFlag

PUBLISHED_AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def context_of(stage: StageInput, *, stop: StopFlag | None = None, store: Store | None = None) -> Context:
    """The context of one attempt."""
    store = store or Store.open(stage.storage)
    return Context(stage, store, Publication(store, stage), structlog.get_logger(), stop or StopFlag())


def import_publication(
    store: Store,
    attempt_id: str = "a1",
    *,
    key: str = "k1",
    kind: StageKind = StageKind.IMPORT,
    inputs: tuple[InputArtifact, ...] = (),
) -> Publication:
    """A publication of an attempt of an import stage, at PUBLISHED_AT."""
    stage = StageInput(
        stage_id="import-sft",
        kind=kind,
        key=key,
        attempt_id=attempt_id,
        namespace="default",
        run="demo",
        storage=store.root,
        inputs=inputs,
        task=ImportTask(what="Model", uri="/models/sft", revision="1"),
    )
    return Publication(store, stage, now=lambda: PUBLISHED_AT)


class StopAfter:
    """A stop flag that is set at the n-th look."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def raise_if_set(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise Interrupted("asked to stop")
