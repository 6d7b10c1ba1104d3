"""Stores in memory and on disk, publications of import stages, and manifests with small chunks."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from warpctl.spec.stage_input import ImportTask, InputArtifact, StageInput, StageKind
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store

_numbers = itertools.count()


@pytest.fixture
def memory() -> Store:
    return Store.open(f"memory://unit/{next(_numbers)}")


@pytest.fixture
def disk(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture(scope="session")
def publication() -> Callable[..., Publication]:
    """A publication of attempt `attempt_id`, at a fixed time."""

    def make(
        store: Store,
        attempt_id: str = "a1",
        *,
        key: str = "k1",
        kind: StageKind = StageKind.IMPORT,
        inputs: tuple[InputArtifact, ...] = (),
    ) -> Publication:
        stage_input = StageInput(
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
        return Publication(store, stage_input, now=lambda: datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC))

    return make
