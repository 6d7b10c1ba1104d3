"""Whole runs whose artifacts live in gs:// and s3://, through the real command: iteration 2 starts from iteration 1's next init."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.builders.small_run import SmallRun, make_small_laboratory
from tests.servers.object_stores import ObjectStore, running_fake_gcs, running_moto
from warpctl.storage.manifest import Manifest
from warpctl.storage.store import Store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_laboratory(tmp_path_factory.mktemp("laboratory") / "tiny")


@pytest.fixture(params=[running_fake_gcs, running_moto], ids=["gs", "s3"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    start: Callable[[], AbstractContextManager[ObjectStore]] = request.param
    with start() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def test_two_iterations_in_a_bucket(tmp_path: Path, laboratory: Path, bucket: ObjectStore) -> None:
    uri = f"{bucket.scheme}://{bucket.bucket}/warp"
    run = SmallRun(tmp_path / "run", laboratory, store_uri=uri, changes={"iterations": 2, "rlRuns": 1})

    code = run.run()

    assert code == 0, run.log()
    store = Store.open(uri)
    markers = [file.path for file in store.list("stages") if file.path.endswith("/committed.json")]
    manifests = {m.stage_id: m for m in (Manifest.from_bytes(store.read(path)) for path in markers)}
    parents = {parent.role: parent for parent in manifests["rl/2/1"].parents}
    assert parents["init"].kind == "merge"
    assert parents["init"].manifest_digest == manifests["merge/1"].digest
    assert parents["sft"].manifest_digest == manifests["import/sft"].digest
    assert store.stat("runs/default/small/report/report.html") is not None
    assert not [file for file in store.list("stages/rl") if "/resume/" in file.path]  # dropped behind the commit
