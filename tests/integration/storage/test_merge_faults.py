"""A merge whose store breaks under it: the bytes of one that nothing disturbed, or a clear error and no artifact."""

from __future__ import annotations

import resource
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.builders.checkpoints import model_files, moved, publish, random_weights
from tests.builders.contexts import context_of
from tests.builders.merge_stage import KEY, inputs_of, merge_stage
from tests.integration.storage.conftest import Place
from tests.servers.fault_proxy import Fault
from warpctl import artifacts
from warpctl.errors import CorruptError, RetryableError
from warpctl.spec.stage_input import InputArtifact, StageInput
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Retries, Store
from warpctl.workers.merge import main

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SHAPES = {f"model.layers.{number}.w": (100, 210) for number in range(6)}
SHARD_BYTES = 200_000
SOME = (Fault(status=503), Fault(reset=True), Fault(cut_request=True), Fault(cut_response=True), Fault(status=429))
INIT = random_weights(0, shapes=SHAPES)
MODELS = [INIT, moved(INIT, 1), moved(INIT, 2)]


def merge(stage: StageInput, store: Store) -> dict[str, bytes]:
    """What the attempt published."""
    main(context_of(stage, store=store), max_shard_bytes=SHARD_BYTES)
    artifact = Artifact.load(store, "merge", KEY)
    return {name: artifact.read(name) for name in artifact.names()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    storage = str(tmp_path_factory.mktemp("undisturbed") / "store")
    store = Store.open(storage)
    return merge(merge_stage(storage, inputs_of(store, [model_files(model) for model in MODELS])), store)


@pytest.fixture
def inputs(cloud: Place) -> tuple[InputArtifact, ...]:
    return inputs_of(cloud.open(), [model_files(model) for model in MODELS])


def test_one_request_in_ten_fails(cloud: Place, inputs: Any, expected: dict[str, bytes]) -> None:
    assert cloud.proxy is not None
    cloud.proxy.share, cloud.proxy.some_faults = 0.1, SOME

    assert merge(merge_stage(cloud.uri, inputs), cloud.open()) == expected

    assert cloud.proxy.num_failed > 3


def test_the_store_is_down_for_a_while(cloud: Place, inputs: Any, expected: dict[str, bytes]) -> None:
    """With the retries of production, which last for minutes."""
    proxy = cloud.proxy
    assert proxy is not None
    stage = merge_stage(cloud.uri, inputs)
    found: list[dict[str, bytes]] = []
    proxy.share, proxy.some_faults = 1.0, (Fault(reset=True), Fault(status=503))
    merging = threading.Thread(target=lambda: found.append(merge(stage, cloud.open(Retries()))))
    merging.start()
    time.sleep(8)
    assert merging.is_alive()
    proxy.share = 0.0
    merging.join(120)

    assert proxy.num_failed > 3
    assert found == [expected]


def test_an_input_that_is_published_anew_while_it_is_read_is_no_input(
    cloud: Place, inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first bytes are read when it is collected, and another attempt publishes it with other weights."""
    store = cloud.open()
    read_into = Artifact.read_into
    replaced = threading.Event()

    def replacing(self: Artifact, *arguments: Any) -> None:
        read_into(self, *arguments)
        if self.manifest.key == inputs[1].key and not replaced.is_set():
            replaced.set()
            self._recent.clear()
            store.delete_tree(artifacts.stage("import", inputs[1].key))
            publish(store, model_files(moved(INIT, 9)), key=inputs[1].key, role="member/1")

    monkeypatch.setattr(Artifact, "read_into", replacing)
    with pytest.raises(CorruptError, match=f"{inputs[1].key}.*model.safetensors"):
        merge(merge_stage(cloud.uri, inputs), store)
    assert replaced.is_set()
    assert store.stat(artifacts.marker("merge", KEY)) is None


def test_a_disk_that_takes_no_more(tmp_path: Path, expected: dict[str, bytes]) -> None:
    storage = str(tmp_path / "store")
    store = Store.open(storage)
    local = inputs_of(store, [model_files(model) for model in MODELS])

    limited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limited[1]))
    try:
        with pytest.raises((RetryableError, OSError), match=r"File too large|space|disk"):
            merge(merge_stage(storage, local), store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limited)

    assert store.stat(artifacts.marker("merge", KEY)) is None
    assert not [file for file in store.list("stages/merge") if file.path.endswith(".safetensors")]
    assert merge(merge_stage(storage, local, attempt="a2"), store) == expected
