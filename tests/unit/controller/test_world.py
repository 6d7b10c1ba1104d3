"""What is kept of Jobs and pods that go."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from warpctl import names
from warpctl.controller.world import Cluster

CREATED, STARTED = "2026-11-21T12:00:00Z", "2026-11-21T12:01:00Z"


class Now:
    """An API whose clock stands where it is put."""

    def __init__(self) -> None:
        self.clock, self.at = self, datetime(2026, 11, 21, 12, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def api() -> Any:
    return Now()


@pytest.fixture
def world(api: Any) -> Cluster:
    return Cluster(api, lambda _: None)


def a_job(version: str = "1", **metadata: Any) -> dict[str, Any]:
    labels = {names.RUN: "demo", names.ATTEMPT: "1"}
    notes = {names.STAGE_KEY: "k" * 64, names.STORAGE: "gs://b", names.GPUS: "4"}
    owner = {"uid": "run-uid", "controller": True}
    common = {"namespace": "ml", "name": "rl-0123-a1", "uid": "job-uid", "creationTimestamp": CREATED}
    common |= {"labels": labels, "annotations": notes, "ownerReferences": [owner], "resourceVersion": version}
    return {"metadata": common | metadata, "spec": {"completions": 1}, "status": {"startTime": CREATED}}


def a_pod() -> dict[str, Any]:
    labels = {names.JOB_UID_LABEL: "job-uid", names.INDEX_LABEL: "0"}
    metadata = {"namespace": "ml", "name": "p", "uid": "p-uid", "creationTimestamp": CREATED, "labels": labels}
    status = {"containerStatuses": [{"state": {"running": {"startedAt": STARTED}}}]}
    return {"metadata": metadata | {"resourceVersion": "2"}, "status": status}


def test_a_job_that_is_stopped_costs_what_it_cost_though_its_pods_go_first(world: Cluster, api: Any) -> None:
    """A Job is deleted in the foreground: at its own end there is no pod left to tell of its beginning."""
    world.jobs.accept(a_job())
    world.pods.accept(a_pod())
    world.jobs.accept(a_job("3", deletionTimestamp=STARTED))
    api.at = datetime(2026, 11, 21, 12, 11, tzinfo=UTC)
    world.pods._drop(("ml", "p"))
    api.at = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
    world.jobs._drop(("ml", "rl-0123-a1"))

    assert world.take_ended_gpu_seconds("run-uid") == 4 * 600
    assert world.pods_of("job-uid") == []


def test_nothing_is_kept_of_a_run_that_has_gone(world: Cluster) -> None:
    run = {"metadata": {"namespace": "ml", "name": "demo", "uid": "run-uid", "resourceVersion": "1"}, "spec": {}}
    world.runs.accept(run | {"apiVersion": "warpctl.dev/v1alpha1", "kind": "WarpRun"})
    world.wait_for(("ml", "demo"), "gs://b", {"a", "b"})
    world.wait_for(("ml", "other"), "gs://b", {"b"})
    world.return_ended_gpu_seconds("run-uid", 5.0)

    world.runs._drop(("ml", "demo"))

    assert dict(world._waiting_for) == {("ml", "b", "gs://b"): {("ml", "other")}}
    assert world.take_ended_gpu_seconds("run-uid") == 0
