"""Imports from and into real object stores on this machine: fake-gcs-server and moto."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.builders.import_stage import import_stage, is_committed, run_import
from tests.builders.model_folder import sharded_model, write_folder
from tests.servers.fault_proxy import Fault
from tests.servers.object_stores import ObjectStore, running_fake_gcs, running_moto
from warpctl.errors import FinalError
from warpctl.storage.store import Store

pytestmark = pytest.mark.integration

_numbers = itertools.count()


@pytest.fixture(scope="module", params=[running_fake_gcs, running_moto], ids=["gcs", "s3"])
def server(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    with request.param() as server:
        yield server


@pytest.fixture
def cloud(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.proxy.clear()
    return server


def a_model_in(cloud: ObjectStore) -> str:
    """URI of a model in the bucket."""
    uri = f"{cloud.scheme}://{cloud.bucket}/models/{next(_numbers)}"
    for name, data in sharded_model().items():
        Store.open(uri).write(name, data)
    return uri


def test_within_one_bucket_the_service_copies(cloud: ObjectStore) -> None:
    uri = a_model_in(cloud)
    storage = f"{cloud.scheme}://{cloud.bucket}/stores/{next(_numbers)}"
    cloud.proxy.clear()

    artifact = run_import(import_stage(storage, uri))

    assert {name: artifact.read(name) for name in artifact.names()} == sharded_model()
    shard = f"{uri.rpartition('/')[2]}/model-00001-of-00002.safetensors"
    reads = [target for method, target in cloud.proxy.seen if method == "GET" and shard in unquote(target)]
    assert len(reads) == 1  # its header; the content was not fetched to be sent back


def test_a_model_comes_out_of_a_bucket_into_a_folder_and_back_into_one(cloud: ObjectStore, tmp_path: Path) -> None:
    down = run_import(import_stage(str(tmp_path / "store"), a_model_in(cloud)))
    folder = write_folder(tmp_path / "model", sharded_model())
    up = run_import(import_stage(f"{cloud.scheme}://{cloud.bucket}/stores/{next(_numbers)}", str(folder)))

    assert {name: down.read(name) for name in down.names()} == sharded_model()
    assert {name: up.read(name) for name in up.names()} == sharded_model()
    assert down.manifest.content_digest == up.manifest.content_digest


def test_one_object_is_a_prompt_set(cloud: ObjectStore, tmp_path: Path) -> None:
    root = f"{cloud.scheme}://{cloud.bucket}"
    lines = b'{"prompt": "x"}\n'
    Store.open(root).write("prompts.jsonl", lines)

    artifact = run_import(import_stage(str(tmp_path / "store"), f"{root}/prompts.jsonl", what="Prompts"))

    assert artifact.read("prompts.jsonl") == lines


def test_503s_and_resets_of_the_source_are_outlived(cloud: ObjectStore, tmp_path: Path) -> None:
    uri = a_model_in(cloud)
    cloud.proxy.fail(Fault(status=503), times=2)
    cloud.proxy.fail(Fault(cut_response=True), method="GET", contains="00002-of-00002", times=1)

    artifact = run_import(import_stage(str(tmp_path / "store"), uri))

    assert {name: artifact.read(name) for name in artifact.names()} == sharded_model()


def test_a_bucket_that_does_not_exist_is_a_final_error_that_names_it(cloud: ObjectStore, tmp_path: Path) -> None:
    storage = str(tmp_path / "store")

    with pytest.raises(FinalError, match="no-such-bucket"):
        run_import(import_stage(storage, f"{cloud.scheme}://no-such-bucket/model"))

    assert not is_committed(storage)
