"""The object store does not answer for a while: a real GCS server behind a proxy that resets every connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.cluster.controllers import Place
from tests.cluster.once import assert_nothing_twice
from tests.cluster.stand_in_workers import End, StandInWorkers
from tests.servers.fault_proxy import Fault
from tests.servers.object_stores import ObjectStore, running_fake_gcs
from warpctl.spec.stage_input import StageInput

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

DOWN_SECONDS = 60.0
"""Longer than a pass tries (3 times, about 2 s) and shorter than a worker does (180 s)."""
ALL = 1_000_000


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with running_fake_gcs() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def test_a_run_says_that_its_store_is_down_and_goes_on_when_it_is_back(
    place: Place, workers: StandInWorkers, bucket: ObjectStore
) -> None:
    """One worker cannot reach it and says so (exit 43); was its work published? Nobody knows before the store is back."""
    uri = f"gs://{bucket.bucket}/runs"
    is_down = threading.Event()

    def decide(told: StageInput, number: int) -> End:
        if (told.stage_id, number) == ("rl/1/2", 1):
            is_down.wait(30)
            return End(43, message="error StoreUnavailableError: no answer")
        return End()

    workers.decide, workers.seconds = decide, 1.5
    place.config_body["tenancy"] = [{"storage": [uri, f"file://{place.folder}"]}]
    place.controller()
    place.create(iterations=1, storage={"uri": uri})
    place.wait(lambda: {"rl/1/1", "rl/1/2"} <= set(workers.stages.values()), "both members train")

    bucket.proxy.fail(Fault(reset=True), times=ALL)
    is_down.set()
    place.wait(lambda: place.condition("Ready").get("reason") == "StoreUnavailable", "the run says so", 60)
    said = {each["type"]: each for each in place.get()["status"]["conditions"]}
    starts = dict(workers.started)
    time.sleep(DOWN_SECONDS)
    assert place.condition("Ready")["reason"] == "StoreUnavailable"
    assert workers.started == starts
    bucket.proxy.clear()

    place.wait_for("Succeeded", seconds=90)
    assert {kind for kind, each in said.items() if each["status"] == "True"} == {"Reconciling"}
    assert "workers go on" in said["Ready"]["message"]
    # Nobody was stopped: who worked in the outage has published.
    assert_nothing_twice(place, workers, rl_1_2=2)
