"""The API server's own store hangs."""

from __future__ import annotations

import time

import pytest

from tests.cluster.controllers import Place
from tests.cluster.kept_alive import KeptAlive
from tests.cluster.once import assert_nothing_twice
from tests.cluster.stand_in_workers import StandInWorkers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

PAUSE_SECONDS = 30.0


def test_a_run_outlives_an_etcd_that_hangs_for_half_a_minute(
    place: Place, workers: StandInWorkers, api_cluster
) -> None:
    """A leader that cannot renew leaves, and the next process of the Deployment goes on; no write is repeated in vain."""
    if not api_cluster.owns_control_plane:
        pytest.skip("the given cluster's etcd is not ours to stop")
    workers.seconds = 0.5
    lease = {"lease_seconds": 6.0, "renew_within_seconds": 4.0, "retry_seconds": 1.0}
    controller = place.controller(tuning={"options": lease})
    with KeptAlive(controller) as kept:
        place.create(iterations=1)
        place.wait(lambda: "rl/1/1" in workers.stages.values(), "a member trains")

        api_cluster.pause_etcd()
        try:
            time.sleep(PAUSE_SECONDS)
        finally:
            api_cluster.resume_etcd()

        place.wait_for("Succeeded", seconds=90)
        assert kept.codes == [1] * len(kept.codes)
        assert len(kept.codes) <= 2
    assert "lease lost" in controller.said()
    assert_nothing_twice(place, workers)
