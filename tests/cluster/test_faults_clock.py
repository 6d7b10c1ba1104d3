"""The wall clock of the controller's machine is set in mid-run. Nothing of a run is timed by it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.controllers import Place
from tests.cluster.once import assert_nothing_twice
from tests.cluster.stand_in_workers import End, StandInWorkers
from warpctl.kube.resources import LEASES
from warpctl.spec.stage_input import StageInput

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

HOUR = 3600.0
LEASE = {"lease_seconds": 5.0, "renew_within_seconds": 4.0}
RARELY, OFTEN = {**LEASE, "retry_seconds": 1.0}, {**LEASE, "retry_seconds": 0.1}
"""Who looks often sees the Lease unchanged most of the time: only then does it count how long that has been."""


class Clock:
    """What a machine's clock is off by: a file, as tuned_controller.py reads it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.jump(0.0)

    def jump(self, seconds: float) -> None:
        partial = self.file.with_suffix(".new")
        partial.write_text(str(seconds))
        partial.replace(self.file)  # readers never see it half written

    def tuning(self, options: dict[str, float]) -> dict[str, Any]:
        return {"options": options, "clock": str(self.file)}


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "leader.clock")


def test_a_clock_that_jumps_makes_no_second_leader_and_ends_no_attempt(
    place: Place, workers: StandInWorkers, clock: Clock
) -> None:
    """Five hours forward, ten back: a stage is at work, another waits for its next attempt. `place` looks at all stamps."""
    workers.decide = lambda told, number: End(43) if (told.stage_id, number) == ("rl/1/1", 1) else _after_a_while(told)
    leader = place.controller(tuning=clock.tuning(RARELY))
    place.wait(lambda: "leading" in leader.said(), "it leads")
    other = Clock(place.folder / "other.clock")
    follower = place.controller(tuning=other.tuning(OFTEN))
    place.create(retry={"backoffSeconds": 2})
    place.wait(lambda: "rl/1/1" in workers.stages.values(), "a member trains")

    clock.jump(5 * HOUR)
    other.jump(-5 * HOUR)
    place.wait(lambda: "started" in follower.said(), "there is a second one")
    place.wait(lambda: "merge/1" in workers.stages.values(), "the second attempt was made, in its time")
    clock.jump(-5 * HOUR)
    other.jump(5 * HOUR)

    place.wait_for("Succeeded", seconds=60)
    assert "leading" not in follower.said()
    assert "lease lost" not in leader.said()
    lease = place.api.list(LEASES, place.namespace).items[0]
    assert lease["spec"]["leaseTransitions"] == 1
    assert_nothing_twice(place, workers, rl_1_1=2)


@pytest.mark.parametrize("hours", [5, -5])
def test_a_pause_before_the_next_attempt_is_as_long_as_it_should_be_whatever_the_clock_says(
    place: Place, workers: StandInWorkers, clock: Clock, hours: int
) -> None:
    """A clock that is hours ahead would end every pause at once, one that is behind would make it hours."""
    clock.jump(hours * HOUR)
    starts: list[float] = []

    def decide(told: StageInput, number: int) -> End:
        if told.stage_id != "rl/1/1":
            return End()
        starts.append(time.monotonic())
        return End(43) if number == 1 else End()

    workers.decide = decide
    place.controller(tuning=clock.tuning(RARELY))
    place.create(iterations=1, retry={"backoffSeconds": 4})

    place.wait_for("Succeeded", seconds=60)
    # The end of an attempt is stamped in whole seconds.
    assert starts[1] - starts[0] >= 3.0


def _after_a_while(told: StageInput) -> End:
    time.sleep(0.5)
    return End()
