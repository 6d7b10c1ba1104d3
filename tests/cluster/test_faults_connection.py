"""Connections between the controller and the API server that break without a word."""

from __future__ import annotations

import pytest

from tests.cluster.controllers import Place
from tests.cluster.harness.proxy import TcpProxy
from tests.cluster.kept_alive import KeptAlive
from tests.cluster.once import assert_nothing_twice
from tests.cluster.stand_in_workers import StandInWorkers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

SHORT_SILENCE = {"options": {"silence_seconds": 4.0}, "patience_seconds": 8.0}


def test_half_open_connections_are_found_out_and_replaced_without_losing_the_lead(
    place: Place, workers: StandInWorkers, api_cluster
) -> None:
    """Every connection that is open goes silent in mid-run, idle ones of the pool too; new ones work."""
    workers.seconds = 0.3
    with TcpProxy(api_cluster) as proxy:
        controller = place.controller(kubeconfig=api_cluster.proxied_kubeconfig(proxy), tuning=SHORT_SILENCE)
        place.create(iterations=1)
        place.wait(lambda: "rl/1/1" in workers.stages.values(), "a member trains")

        proxy.swallow(new_too=False)

        place.wait_for("Succeeded", seconds=60)
        assert controller.process is not None
        assert controller.process.poll() is None
        assert "watch of jobs begins again" in controller.said()
        assert "lease lost" not in controller.said()
    assert_nothing_twice(place, workers)


def test_a_controller_that_is_cut_off_leaves_and_its_successor_goes_on(
    place: Place, workers: StandInWorkers, api_cluster
) -> None:
    """New connections are silent too, for longer than the lease may be renewed: nobody may write then."""
    workers.seconds = 0.3
    lease = {"lease_seconds": 5.0, "renew_within_seconds": 3.0, "retry_seconds": 1.0}
    tuning = {"options": {"silence_seconds": 4.0, **lease}, "patience_seconds": 3.0}
    with TcpProxy(api_cluster) as proxy:
        controller = place.controller(kubeconfig=api_cluster.proxied_kubeconfig(proxy), tuning=tuning)
        place.create(iterations=1)
        place.wait(lambda: "rl/1/1" in workers.stages.values(), "a member trains")
        with KeptAlive(controller) as kept:
            proxy.swallow()
            place.wait(lambda: kept.codes, "it has left", 30)
            version = place.get()["metadata"]["resourceVersion"]
            proxy.cut()
            proxy.restore()

            place.wait_for("Succeeded", seconds=60)
    assert kept.codes[0] == 1
    assert "lease lost" in controller.said()
    assert place.get()["metadata"]["resourceVersion"] != version
    assert_nothing_twice(place, workers)
