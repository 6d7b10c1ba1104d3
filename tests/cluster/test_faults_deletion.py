"""What belongs to a run, or to its controllers, goes away under their hands."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import pytest

from tests.cluster.controllers import Place
from tests.cluster.kept_alive import KeptAlive
from tests.cluster.stand_in_workers import End, StandInWorkers
from warpctl.kube.api import Object
from warpctl.kube.resources import JOBS, LEASES, PODS
from warpctl.spec.stage_input import StageInput

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

UID = 36
"""Characters of a pod's uid, which ends an attempt id."""


class Redone:
    """Notes starts of stages that were finished before; a worker whose pod was deleted says no more."""

    def __init__(self, workers: StandInWorkers) -> None:
        self.workers = workers
        self.stages: list[str] = []
        self.done: set[str] = set()
        self.lock = threading.Lock()

    def __call__(self, told: StageInput, number: int) -> End | None:
        with self.lock:
            if told.key in self.done:
                self.stages.append(told.stage_id)
        time.sleep(0.7)
        with self.lock:
            if told.attempt_id[-UID:] not in self.workers._live:
                return None
            self.done.add(told.key)
        return End()


def test_pods_jobs_and_leases_that_are_deleted_at_random_moments_cost_only_what_was_unfinished(
    place: Place, workers: StandInWorkers
) -> None:
    """Two controllers, so that a deleted Lease may change the lead. 12 deletions, at least, in one run of two iterations."""
    chance = random.Random(5)
    redone = workers.decide = Redone(workers)
    lease = {"lease_seconds": 3.0, "renew_within_seconds": 2.0, "retry_seconds": 0.3}
    first, second = (place.controller(tuning={"options": lease}) for _ in range(2))
    deletions: list[str] = []

    def delete_one(resource: type[object] | object, found: list[Object], what: str) -> None:
        if found:
            name = chance.choice(found)["metadata"]["name"]
            place.api.delete(resource, place.namespace, name, propagation="Foreground")
            deletions.append(what)

    def running_pods() -> list[Object]:
        return [pod for pod in place.api.list(PODS, place.namespace).items if pod["status"].get("phase") == "Running"]

    actions: list[Callable[[], None]] = [
        lambda: delete_one(PODS, running_pods(), "pod"),
        lambda: delete_one(JOBS, place.jobs(), "job"),
        lambda: delete_one(LEASES, place.api.list(LEASES, place.namespace).items, "lease"),
    ]
    with KeptAlive(first), KeptAlive(second):
        place.create(retry={"limit": 100, "backoffSeconds": 0})
        place.wait(place.jobs, "a first Job")
        while place.condition("Succeeded").get("status") != "True" and len(deletions) < 40:
            chance.choice(actions)()
            time.sleep(chance.uniform(0.1, 1.0))

        place.wait_for("Succeeded", seconds=60)
    assert redone.stages == []
    assert set(workers.published.values()) == {1}
    assert set(deletions) == {"pod", "job", "lease"}
    assert len(deletions) >= 12


def test_jobs_that_the_ttl_controller_deletes_are_not_made_again(place: Place, workers: StandInWorkers) -> None:
    """The configuration's bound (a minute) is passed by, so that Kubernetes' own TTL controller acts within the test."""
    workers.seconds = 0.5
    place.controller(tuning={"ttl_seconds": 1})
    place.create()
    place.wait(lambda: "merge/1" in workers.stages.values(), "the first merge has begun")
    place.wait(
        lambda: not any(stage.startswith("rl/1/") for stage in place.jobs_by_stage()), "its members' Jobs are gone"
    )

    place.wait_for("Succeeded")
    place.wait(lambda: not place.jobs(), "all Jobs go by themselves", 30)
    time.sleep(1.0)

    assert place.jobs() == []
    assert set(workers.started.values()) == {1}
    assert place.get()["status"]["stagesSucceeded"] == place.get()["status"]["stagesTotal"]
