"""The API server refuses, is busy, fails, or does what it was asked and cannot say so: at many requests of one run."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from tests.cluster.controllers import Place
from tests.cluster.harness.http_proxy import HttpProxy
from tests.cluster.once import assert_nothing_twice
from tests.cluster.stand_in_workers import StandInWorkers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

JOBS_MADE = {"method": "POST", "path": r"/jobs$"}
JOBS_CHANGED = {"method": "PATCH", "path": r"/jobs/[^/]+$"}
STATUS = {"method": "PATCH", "path": r"/warpruns/[^/]+/status$"}
LEASE = {"method": "PUT", "path": r"/leases/"}
LISTS = {"method": "GET", "path": r"/(warpruns|jobs|pods)\?(?!.*watch=true)"}
WATCHES = {"method": "GET", "path": r"watch=true"}
EVENTS = {"method": "POST", "path": r"/events$"}
QUOTA = 'Operation cannot be fulfilled on resourcequotas "gpus": the object has been modified'

FAULTS: dict[str, tuple[int, list[tuple[dict[str, Any], int]], dict[str, Any]]] = {
    # Status, [(requests, how many of them)], how.
    "conflict": (409, [(JOBS_MADE, 5), (STATUS, 4), (LEASE, 2), (JOBS_CHANGED, 3)], {"message": QUOTA}),
    "expired": (410, [(LISTS, 3), (WATCHES, 4), (STATUS, 2)], {}),
    "busy": (429, [(JOBS_MADE, 2), (STATUS, 2), (LISTS, 1), (WATCHES, 2), (LEASE, 1)], {"retry_after_seconds": 1}),
    "broken": (500, [(JOBS_MADE, 3), (STATUS, 4), (LISTS, 3), (WATCHES, 3), (LEASE, 2), (EVENTS, 1)], {}),
    "lost-answer": (500, [(JOBS_MADE, 5), (STATUS, 5), (LEASE, 2), (JOBS_CHANGED, 3)], {"is_performed": True}),
}


def has_met(proxy: HttpProxy, requests: dict[str, Any]) -> bool:
    return any(
        method == requests["method"] and re.search(requests["path"], target) for method, target, _ in proxy.faults
    )


@pytest.mark.parametrize("kind", FAULTS)
def test_answers_that_are_no_success_cost_time_and_nothing_else(
    place: Place, workers: StandInWorkers, api_cluster, kind: str
) -> None:
    status, orders, how = FAULTS[kind]
    chance = random.Random(kind)
    with HttpProxy(api_cluster) as proxy:
        for requests, count in orders:
            for _ in range(count):
                proxy.fail(status, **requests, **how, after=chance.choice([0, 0, 0, 1]) if count > 1 else 0)
        tuning = {"options": {"retry_seconds": 0.5}}
        place.controller(kubeconfig=api_cluster.proxied_kubeconfig(proxy), tuning=tuning)
        place.create(iterations=1)
        place.wait(lambda: "rl/1/1" in workers.stages.values(), "a member trains")
        proxy.end_watches(410)

        place.wait_for("Succeeded", seconds=60)
        for requests, _ in orders:
            place.wait(lambda wanted=requests: has_met(proxy, wanted), f"a fault of {requests}", 20)
    assert_nothing_twice(place, workers)


def test_a_mix_of_faults_at_a_tenth_of_all_requests_is_outlived(
    place: Place, workers: StandInWorkers, api_cluster
) -> None:
    chance = random.Random(11)
    with HttpProxy(api_cluster) as proxy:
        for _ in range(30):
            requests = chance.choice([JOBS_MADE, STATUS, LISTS, WATCHES, JOBS_CHANGED, EVENTS])
            code = chance.choice([409, 410, 429, 500, 503, 504])
            how = {"is_performed": chance.random() < 0.3, "retry_after_seconds": 1 if code == 429 else None}
            proxy.fail(code, **requests, **how, after=chance.randrange(12))
        place.controller(kubeconfig=api_cluster.proxied_kubeconfig(proxy))
        place.create(iterations=2)
        place.wait(lambda: "merge/1" in workers.stages.values(), "the first merge")
        proxy.cut_watches()

        place.wait_for("Succeeded", seconds=90)
        assert len(proxy.faults) >= 10
    assert_nothing_twice(place, workers)


def test_a_job_whose_creation_was_not_heard_of_is_not_created_again_by_a_view_that_is_stale(
    place: Place, workers: StandInWorkers, api_cluster
) -> None:
    """The answers to two creations are lost, and so is the watch that would tell of them."""
    with HttpProxy(api_cluster) as proxy:
        controller = place.controller(kubeconfig=api_cluster.proxied_kubeconfig(proxy))
        place.wait(lambda: "leading" in controller.said(), "it leads")
        place.wait(lambda: proxy.open_watches == 3, "it watches")
        proxy.fail(500, method="GET", path=r"/jobs\?.*watch=true", times=4)
        proxy.fail(500, **JOBS_MADE, times=2, is_performed=True)
        proxy.end_watches(500)
        place.create(iterations=1)

        place.wait_for("Succeeded", seconds=60)
        assert [method for method, _, _ in proxy.faults].count("POST") == 2
    assert_nothing_twice(place, workers)
