"""One merge on several nodes that do not speak with each other: the bytes of one node, published by whoever is last."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.builders.checkpoints import model_files, moved, random_weights
from tests.builders.merge_stage import KEY, context_of, inputs_of, merge_stage, run_merge
from warpctl import artifacts
from warpctl.errors import Interrupted
from warpctl.spec.stage_input import InputArtifact
from warpctl.storage.artifact import Artifact
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.workers.harness import StopFlag
from warpctl.workers.merge import main

INIT = random_weights(0)
LIMIT = 400


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def inputs(storage: str) -> tuple[InputArtifact, ...]:
    return inputs_of(Store.open(storage), [model_files(model) for model in (INIT, moved(INIT, 1), moved(INIT, 2))])


@pytest.fixture
def alone(storage: str, inputs: Any) -> dict[str, bytes]:
    """What one node publishes."""
    found = content(run_merge(merge_stage(storage, inputs), max_shard_bytes=LIMIT))
    Store.open(storage).delete_tree(artifacts.stage("merge", KEY))
    return found


def content(artifact: Artifact) -> dict[str, bytes]:
    return {name: artifact.read(name) for name in artifact.names()}


def node(storage: str, inputs: Any, rank: int, num_nodes: int, *, job: int = 1, stop: StopFlag | None = None) -> bool:
    """Run one; whether the artifact is published then."""
    context = context_of(merge_stage(storage, inputs, attempt=f"{job}-job-{rank}-pod"), stop=stop)
    context.rank, context.num_nodes = rank, num_nodes
    main(context, max_shard_bytes=LIMIT)
    assert context.publication.is_committed == (context.store.stat(artifacts.marker("merge", KEY)) is not None)
    return context.publication.is_committed


@pytest.mark.parametrize("order", [(0,), (0, 1), (1, 0), (2, 0, 1), (6, 5, 4, 3, 2, 1, 0)], ids=str)
def test_in_any_order_the_last_one_publishes_what_one_node_does(
    storage: str, inputs: Any, alone: dict[str, bytes], order: tuple[int, ...]
) -> None:
    published = [node(storage, inputs, rank, len(order)) for rank in order]

    shards = sum(name.startswith("merged/model-") and name.endswith(".safetensors") for name in alone)
    with_shards = [index for index, rank in enumerate(order) if rank < shards]
    assert published == [index >= with_shards[-1] for index in range(len(order))]
    assert content(Artifact.load(Store.open(storage), "merge", KEY)) == alone
    assert shards_written_by(storage) == {f"1-job-{rank}" for rank in order if rank < shards}


def test_all_at_once_publish_one_artifact(storage: str, inputs: Any, alone: dict[str, bytes]) -> None:
    results: list[bool] = []
    nodes = [threading.Thread(target=lambda r=rank: results.append(node(storage, inputs, r, 3))) for rank in range(3)]
    for each in nodes:
        each.start()
    for each in nodes:
        each.join(60)

    assert len(results) == 3
    assert any(results)
    assert content(Artifact.load(Store.open(storage), "merge", KEY)) == alone


def test_shards_of_another_layout_are_not_taken(storage: str, inputs: Any, alone: dict[str, bytes]) -> None:
    """As many files of the same names, which hold other tensors."""
    assert not node(storage, inputs, 0, 2)
    store = Store.open(storage)
    for state in (file.path for file in store.list("stages/merge") if file.path.endswith("/merge.json")):
        store.write(state, re.sub(rb'"layout": "[^"]*', b'"layout": "another', store.read(state)))

    assert node(storage, inputs, 0, 1, job=2)

    artifact = Artifact.load(store, "merge", KEY)
    assert content(artifact) == alone
    assert not [file.path for file in artifact.manifest.files if "/1-job-0-pod/" in file.path]


class StopAtOnce(StopFlag):
    def raise_if_set(self) -> None:
        raise Interrupted("stopped")


def test_what_one_node_has_done_stays_when_another_fails(storage: str, inputs: Any, alone: dict[str, bytes]) -> None:
    assert not node(storage, inputs, 0, 2)
    with pytest.raises(Interrupted):
        node(storage, inputs, 1, 2, stop=StopAtOnce())

    assert not node(storage, inputs, 0, 2, job=2)
    assert node(storage, inputs, 1, 2, job=2)

    assert content(Artifact.load(Store.open(storage), "merge", KEY)) == alone
    assert shards_written_by(storage) == {"1-job-0", "2-job-1"}


class KilledError(Exception):
    pass


def shards_written_by(storage: str) -> set[str]:
    """Attempts whose shards the published artifact has, as job and rank."""
    manifest = Artifact.load(Store.open(storage), "merge", KEY).manifest
    attempts = {file.path.split("/attempts/")[1].split("/")[0] for file in manifest.files if "/model-" in file.name}
    return {attempt.removesuffix("-pod") for attempt in attempts}


def test_the_last_one_dies_before_its_commit_and_the_next_attempt_publishes_what_there_is(
    storage: str, inputs: Any, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other pod is complete by then, its Job failed with this one: both nodes of the next one see everything."""

    def die(*_: Any, **__: Any) -> None:
        raise KilledError

    assert not node(storage, inputs, 0, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Publication, "commit", die)
        with pytest.raises(KilledError):
            node(storage, inputs, 1, 2)
    assert Store.open(storage).stat(artifacts.marker("merge", KEY)) is None

    assert node(storage, inputs, 1, 2, job=2)
    assert node(storage, inputs, 0, 2, job=2)

    assert content(Artifact.load(Store.open(storage), "merge", KEY)) == alone
    assert shards_written_by(storage) == {"1-job-0", "1-job-1"}


def test_a_listing_that_hides_the_others_costs_an_attempt_and_no_work(
    storage: str, inputs: Any, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an NFS client's may for a minute: each node sees what it wrote itself. The planner starts another attempt then."""
    listed = Store.list
    for rank in (0, 1):
        with monkeypatch.context() as patch:
            own = f"/1-job-{rank}-pod/"
            patch.setattr(
                Store, "list", lambda self, prefix, own=own: [f for f in listed(self, prefix) if own in f.path]
            )
            assert not node(storage, inputs, rank, 2)

    assert node(storage, inputs, 0, 2, job=2)

    assert content(Artifact.load(Store.open(storage), "merge", KEY)) == alone
    assert shards_written_by(storage) == {"1-job-0", "1-job-1"}


def test_the_next_attempt_may_have_another_number_of_nodes(storage: str, inputs: Any, alone: dict[str, bytes]) -> None:
    assert not node(storage, inputs, 1, 3)
    assert node(storage, inputs, 0, 1, job=2)
    assert content(Artifact.load(Store.open(storage), "merge", KEY)) == alone
