"""What an RL run publishes: save_pretrained's files to the byte, several shards at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from tests.builders.checkpoints import publish
from tests.builders.rl_stage import policy_files, small_policy
from warpctl.errors import StoreUnavailableError
from warpctl.spec.stage_input import ImportTask, StageInput, StageKind
from warpctl.storage.artifact import Artifact
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.workers.policies import load_policy
from warpctl.workers.policy_files import PARALLEL_FILES, publish_policy

SMALL_SHARDS = "20KB"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def init(store: Store) -> Artifact:
    return Artifact.of(store, publish(store, policy_files(), key="a" * 64, role="init"))


def a_publication(store: Store) -> Publication:
    stage = StageInput(
        stage_id="rl/1/1", kind=StageKind.RL, key="b" * 64, attempt_id="1", namespace="d", run="r",
        storage=store.root, task=ImportTask(what="Model", uri="memory://x", revision="main"),
    )  # fmt: skip
    return Publication(store, stage)


@pytest.mark.parametrize("max_shard_size", [SMALL_SHARDS, "4GB"])
def test_the_shards_are_those_of_save_pretrained(
    store: Store, init: Artifact, tmp_path: Path, max_shard_size: str
) -> None:
    model = small_policy(7)
    publication = a_publication(store)
    publish_policy(publication, model, init, "", max_shard_size=max_shard_size)
    publication.commit()
    artifact = Artifact.load(store, "rl", "b" * 64)
    model.save_pretrained(tmp_path / "model", max_shard_size=max_shard_size)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    weights = [name for name in expected if "safetensors" in name]
    assert len(weights) == 1 if max_shard_size == "4GB" else len(weights) > PARALLEL_FILES
    assert {name: artifact.read(name) for name in weights} == {name: expected[name] for name in weights}
    assert artifact.read("config.json") == expected["config.json"]
    assert artifact.read("tokenizer.json") == policy_files()["tokenizer.json"]
    loaded, _ = load_policy(artifact)
    assert all(torch.equal(loaded.get_parameter(name), value) for name, value in model.named_parameters())


def test_shards_are_written_side_by_side(store: Store, init: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(PARALLEL_FILES, timeout=60)
    first = iter(range(PARALLEL_FILES))
    open_file = Publication.open_file

    def waiting(publication: Publication, name: str) -> object:
        if next(first, None) is not None:
            together.wait()
        return open_file(publication, name)

    monkeypatch.setattr(Publication, "open_file", waiting)
    publish_policy(a_publication(store), small_policy(7), init, "", max_shard_size=SMALL_SHARDS)

    assert not together.broken


def test_a_shard_that_cannot_be_written_fails_the_publication(
    store: Store, init: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = Publication.open_file

    def broken(publication: Publication, name: str) -> object:
        if name.startswith("model-00003"):
            raise StoreUnavailableError("the store is down", hint="wait")
        return open_file(publication, name)

    monkeypatch.setattr(Publication, "open_file", broken)
    with pytest.raises(StoreUnavailableError, match="the store is down"):
        publish_policy(a_publication(store), small_policy(7), init, "", max_shard_size=SMALL_SHARDS)
