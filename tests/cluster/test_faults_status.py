"""A status that this controller did not write: of an older release, or of nobody, after a restore from a backup."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.controllers import Place
from tests.cluster.once import assert_nothing_twice
from tests.cluster.stand_in_workers import End, StandInWorkers
from warpctl.kube.resources import WARPRUNS
from warpctl.spec.stage_input import StageInput

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


def none_at_all(status: dict[str, Any]) -> dict[str, Any]:
    return {}


def of_an_older_release(status: dict[str, Any]) -> dict[str, Any]:
    """Two conditions of the five, in other words; numbers that were not kept then; stages and fields that no longer exist."""
    kept = [each for each in status["conditions"] if each["type"] in ("Ready", "Succeeded")]
    return {
        "conditions": [{**each, "reason": "Phase", "message": "", "observedGeneration": 0} for each in kept],
        "stages": [{"id": "policy-1", "state": "Training"}, {"id": "rl/1/1", "state": "Stalled", "message": "gone"}],
        "gpuHours": "",
        "endedGpuSeconds": "none",
        "iteration": 7,
        "phase": "Running",
    }


@pytest.mark.parametrize("older", [none_at_all, of_an_older_release])
def test_a_run_goes_on_from_what_is_published_whatever_its_status_says(
    place: Place, workers: StandInWorkers, older: Any
) -> None:
    may_merge = False

    def decide(told: StageInput, number: int) -> End | None:
        while told.stage_id == "merge/1" and not may_merge and not workers._stop.wait(0.05):
            pass
        return End()

    workers.decide = decide
    first = place.controller()
    place.create(iterations=1)
    place.wait(lambda: "merge/1" in workers.stages.values(), "the merge has begun")
    assert first.stop() == 0
    rewrite(place, older)

    second = place.controller()
    place.wait(lambda: len(place.get().get("status", {}).get("conditions", ())) == 5, "a whole status", 30)
    may_merge = True
    place.wait_for("Succeeded")
    assert second.stop() == 0

    # Once more, of a run that has ended: what said so is lost, what is published is not.
    rewrite(place, older)
    place.controller()
    place.wait_for("Succeeded")
    place.wait(lambda: place.get()["status"].get("stagesText"), "a whole status")
    assert_nothing_twice(place, workers)
    status = place.get()["status"]
    assert (status["iterationText"], status["stagesSucceeded"]) == ("1/1", status["stagesTotal"])
    assert status["retries"] == 0


def rewrite(place: Place, older: Any) -> None:
    """Replace the status, as the API server lets a controller of any release do."""
    status = place.get()["status"]
    wanted = older(status)
    body = {"status": dict.fromkeys(status) | wanted}
    written = place.api.patch(WARPRUNS, place.namespace, "demo", body, subresource="status")
    place.history.pardon(written)
    assert "phase" not in written.get("status", {})  # pruned: the definition lets no unknown field in
    assert set(written.get("status", {})) == set(wanted) - {"phase"}
