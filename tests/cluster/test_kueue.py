"""A queue of Kueue's holds Jobs back by their suspend field, and takes it back when somebody else's turn has come."""

from __future__ import annotations

import pytest

from tests.cluster.controllers import Place
from tests.cluster.stand_in_workers import End, StandInWorkers
from warpctl.kube.api import Object
from warpctl.kube.resources import JOBS, WARPRUNS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
QUEUE = "kueue.x-k8s.io/queue-name"


def rl_job(place: Place) -> Object:
    return next(job for job in place.jobs() if job["metadata"]["name"].startswith("rl-"))


def set_suspend(place: Place, *, is_suspended: bool) -> None:
    """What Kueue does."""
    place.api.patch(JOBS, place.namespace, rl_job(place)["metadata"]["name"], {"spec": {"suspend": is_suspended}})


def test_a_job_that_kueue_holds_back_is_queued_and_is_the_same_job_when_it_is_let_go(
    place: Place, workers: StandInWorkers
) -> None:
    workers.decide = lambda told, number: None if (told.stage_id, number) == ("rl/1/1", 1) else End()
    place.controller()
    body = {"apiVersion": WARPRUNS.api_version, "kind": WARPRUNS.kind}
    metadata = {"name": "demo", "labels": {QUEUE: "lab", "team": "alignment"}}
    spec = place.spec(iterations=1, rlRuns=1)
    place.api.create(WARPRUNS, place.namespace, body | {"metadata": metadata, "spec": spec})
    place.wait(lambda: "rl/1/1" in workers.stages.values(), "a member trains")
    job = rl_job(place)
    assert job["metadata"]["labels"][QUEUE] == "lab"
    assert "team" not in job["metadata"]["labels"]

    set_suspend(place, is_suspended=True)
    place.wait(lambda: "queued: Kueue has not admitted" in place.condition("Ready")["message"], "it says so")
    assert place.condition("Ready")["reason"] == "Waiting"
    assert place.condition("Stalled")["status"] == "False"
    place.wait(lambda: workers.num_live() == 0, "its pod has gone")
    set_suspend(place, is_suspended=False)

    place.wait_for("Succeeded")
    assert rl_job(place)["metadata"]["uid"] == job["metadata"]["uid"]
    assert place.get()["status"]["retries"] == 0
