"""How a worker ends decides what comes next, and what its run says of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.cluster.controllers import Place
from tests.cluster.stand_in_workers import End, StandInWorkers
from warpctl import names
from warpctl.errors import EXIT_FINAL, EXIT_INTERRUPTED, EXIT_RETRYABLE
from warpctl.kube.api import Object
from warpctl.kube.resources import EVENTS
from warpctl.spec.stage_input import StageInput

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

LOG = "step 1\nstep 2\nstep 3\nerror NumericsError error='the loss is NaN'\n"
ENDS = {
    # Counted, until the limit of one more is used up.
    "rl/1/1": [End(EXIT_RETRYABLE, message=LOG)] * 9,
    # The place's: it told the worker to leave, killed it, ended it. None counts, and the fourth attempt is good.
    "rl/1/2": [End(EXIT_INTERRUPTED), End(137), End(143), End()],
    # Final at once.
    "rl/1/3": [End(EXIT_FINAL, message=LOG)] * 9,
    # Memory: the place's too, and there is a way out.
    "rl/1/4": [End(137, reason="OOMKilled"), End()],
}


def test_each_way_to_fail_has_its_consequence_and_its_words(place: Place, workers: StandInWorkers) -> None:
    def decide(told: StageInput, number: int) -> End:
        return ENDS.get(told.stage_id, [End()] * 9)[number - 1]

    workers.decide = decide
    place.controller()
    place.create(iterations=1, rlRuns=4, retry={"limit": 1, "backoffSeconds": 1})

    place.wait(lambda: stalled_stages(place) == {"rl/1/1", "rl/1/3"}, "two have failed for good")
    place.wait(lambda: place.jobs_by_stage()["rl/1/2"] == 4, "one is tried as often as its place fails")
    place.wait(lambda: place.condition("Reconciling")["status"] == "False", "nothing is left to be done")
    jobs = place.jobs_by_stage()
    stages = {each["id"]: each["message"] for each in place.get()["status"]["stages"]}
    stalled = place.condition("Stalled")

    assert {stage: jobs[stage] for stage in ENDS} == {"rl/1/1": 2, "rl/1/2": 4, "rl/1/3": 1, "rl/1/4": 2}
    assert "merge/1" not in jobs
    last_lines = "exit code {}: step 2 / step 3 / error NumericsError error='the loss is NaN'"
    assert stages["rl/1/1"] == f"2 attempts failed, retry.limit is 1; the last one: {last_lines.format(EXIT_RETRYABLE)}"
    assert stages["rl/1/3"] == f"attempt 1 cannot succeed: {last_lines.format(EXIT_FINAL)}"
    assert (stalled["status"], stalled["reason"]) == ("True", "StageStalled")
    assert stalled["message"] == f"rl/1/1, rl/1/3: {stages['rl/1/1']}"
    events = [
        each
        for each in place.api.list(EVENTS, place.namespace, fields="involvedObject.kind=WarpRun").items
        if each["reason"] == "StageStalled"
    ]
    assert {each["type"] for each in events} == {"Warning"}
    assert any("exit code" in each["message"] and "the loss is NaN" in each["message"] for each in events)
    said = {each["message"] for status in place.history.statuses() for each in of_stage(status, "rl/1/4")}
    assert any("out of memory" in each and "spec.compute.rl.memory" in each for each in said)


def test_a_merge_is_done_by_whichever_of_its_pods_publishes_and_again_where_none_did(
    place: Place, workers: StandInWorkers
) -> None:
    """First no pod sees the parts of the other one, as over a store that lists late. Then the second pod publishes while the first
    is not done leaving, and a controller begins anew just then: it takes that for the success that it is.
    """
    may_leave = threading.Event()

    def decide(told: StageInput, number: int) -> End:
        if told.stage_id != "merge/1":
            return End()
        attempt, _, pod = told.attempt_id.partition("-")
        is_second_pod = pod[UID_LENGTH:].startswith("-1-")
        if attempt == "2" and not is_second_pod:
            may_leave.wait(60)
        return End(publishes=attempt == "2" and is_second_pod)

    workers.decide = decide
    controller = place.controller()
    merge = {"nodes": 2, **place.spec()["compute"]["merge"]}
    place.create(iterations=1, compute=place.spec()["compute"] | {"merge": merge}, retry={"backoffSeconds": 1})
    place.wait(lambda: workers.num_published("merge/1") == 1, "the second attempt's second pod has published")
    assert controller.stop() == 0
    place.controller()
    place.wait(lambda: "evaluate/1" in place.jobs_by_stage(), "what needs it begins")

    assert [state_of(each) for each in merge_jobs(place)] == ["Complete", "runs"]
    may_leave.set()
    place.wait_for("Succeeded")
    both_end = ["Complete", "Complete"]
    place.wait(
        lambda: [state_of(each) for each in merge_jobs(place)] == both_end, "the Job of both pods ends well, too"
    )
    said = {each["message"] for status in place.history.statuses() for each in of_stage(status, "merge/1")}
    assert any(
        "all nodes of attempt 1 ended with exit code 0 and its artifact is not there" in each for each in said
    ), said


UID_LENGTH = 36


def merge_jobs(place: Place) -> list[Object]:
    jobs = [job for job in place.jobs() if job["metadata"]["annotations"][names.STAGE_ID] == "merge/1"]
    return sorted(jobs, key=lambda job: int(job["metadata"]["labels"][names.ATTEMPT]))


def state_of(job: Object) -> str:
    if "deletionTimestamp" in job["metadata"]:
        return "is asked to go"
    ends = [each["type"] for each in job["status"].get("conditions", ()) if each["status"] == "True"]
    return next((each for each in ends if each in ("Complete", "Failed")), "runs")


def stalled_stages(place: Place) -> set[str]:
    return {each["id"] for each in place.get().get("status", {}).get("stages", ()) if each["state"] == "Stalled"}


def of_stage(status: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    return [{"message": "", **each} for each in status.get("stages", ()) if each["id"] == stage]
