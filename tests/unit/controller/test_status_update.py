"""The status of a WarpRun, and the Events of what has changed in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.builders.world import a_run
from warpctl.controller.status_update import (
    Facts,
    best_of,
    cluster_status,
    refused_status,
    transitions,
    unavailable_status,
    verbs_digest,
)
from warpctl.plan.observed import Observed
from warpctl.plan.progress import summarise
from warpctl.spec.status import RunStatus, StageState, StageStatus

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
FACTS = Facts(generation=3, spec_digest="abc", handled="", ended_gpu_seconds=0.0, best=None, report="")


def seen(**changes: Any) -> RunStatus:
    run = a_run()
    return summarise(run, Observed(), NOW).model_copy(update=changes)


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(each for each in status["conditions"] if each["type"] == kind)


def test_all_five_conditions_are_there_from_the_first_visit() -> None:
    status = cluster_status(seen(), FACTS, {}, NOW)

    assert {each["type"] for each in status["conditions"]} == {
        "Ready",
        "Reconciling",
        "Stalled",
        "Suspended",
        "Succeeded",
    }
    assert {each["observedGeneration"] for each in status["conditions"]} == {3}


def test_a_second_pass_that_sees_the_same_writes_the_same() -> None:
    first = cluster_status(seen(), FACTS, {}, NOW)
    second = cluster_status(seen(), FACTS, first, NOW + timedelta(hours=1))

    assert second == first


def test_a_transition_time_moves_only_with_its_condition() -> None:
    first = cluster_status(seen(), FACTS, {}, NOW)
    later = refused_status("NotAllowed", "no", first, generation=4, handled="", now=NOW + timedelta(hours=1))

    assert condition(later, "Stalled")["lastTransitionTime"] == "2026-11-21T13:00:00Z"
    assert condition(later, "Ready")["lastTransitionTime"] == "2026-11-21T12:00:00Z"
    assert later["stagesTotal"] == first["stagesTotal"]


def test_the_list_of_stages_is_bounded_and_keeps_those_in_trouble() -> None:
    rows = tuple(StageStatus(id=f"rl/1/{i}", kind="rl", state=StageState.RUNNING) for i in range(100))
    bad = StageStatus(id="rl/2/1", kind="rl", state=StageState.STALLED, message="x" * 5000)

    stages = cluster_status(seen(stages=(*rows, bad)), FACTS, {}, NOW)["stages"]

    assert (len(stages), stages[0]["id"], len(stages[0]["message"])) == (64, "rl/2/1", 512)


def test_there_is_no_number_with_a_fraction_in_a_status() -> None:
    status = cluster_status(seen(gpu_hours=1.5), replace(FACTS, ended_gpu_seconds=12.5), {}, NOW)

    def numbers(value: Any) -> list[float]:
        if isinstance(value, dict):
            return [each for item in value.values() for each in numbers(item)]
        if isinstance(value, list):
            return [each for item in value for each in numbers(item)]
        return [value] if isinstance(value, float) else []

    assert numbers(status) == []
    assert status["gpuHours"] == "1.50"


def test_each_thing_that_happens_is_told_once() -> None:
    first = cluster_status(seen(), FACTS, {}, NOW)
    rows = (StageStatus(id="rl/1/1", kind="rl", state=StageState.RETRYING, message="exit code 1"),)
    second = cluster_status(seen(stages=rows, iteration=1), FACTS, first, NOW)
    third = refused_status("NotAllowed", "spec.storage.uri ...", second, generation=3, handled="", now=NOW)

    assert transitions(first, first) == []
    assert [each.reason for each in transitions(first, second)] == ["IterationMerged", "AttemptFailed"]
    assert transitions(second, second) == []
    assert [(each.reason, each.is_warning) for each in transitions(second, third)] == [("NotAllowed", True)]


def test_a_store_that_does_not_answer_stalls_nothing() -> None:
    status = unavailable_status("gs://b does not answer", {}, generation=1, handled="", now=NOW)

    assert condition(status, "Stalled")["status"] == "False"
    assert condition(status, "Ready")["reason"] == "StoreUnavailable"


@pytest.mark.parametrize(("kind", "reason"), [("Stalled", "StageStalled"), ("Suspended", "Suspended")])
@pytest.mark.parametrize("reconciling", ["True", "False"])
def test_a_store_that_does_not_answer_changes_nothing_about_what_stands_still(kind, reason, reconciling) -> None:
    """Other stages may be at work beside one that has stalled: who waits for the end goes on waiting."""
    common = {"reason": reason, "message": "why", "observedGeneration": 1, "lastTransitionTime": "2026-11-20T12:00:00Z"}
    before = {
        "conditions": [
            {"type": kind, "status": "True", **common},
            {"type": "Reconciling", "status": reconciling, **common},
        ]
    }
    status = unavailable_status("gs://b does not answer", before, generation=1, handled="", now=NOW)

    assert condition(status, kind) == before["conditions"][0]
    assert condition(status, "Reconciling") == before["conditions"][1]
    assert condition(status, "Ready")["reason"] == "StoreUnavailable"
    assert transitions(before, status) == []


@pytest.mark.parametrize("change", [{"generation": 2}, {"handled": "retry"}, {"reason": "NotAllowed"}])
def test_what_was_asked_since_or_refused_before_is_open_while_the_store_does_not_answer(change) -> None:
    stalled = {"type": "Stalled", "status": "True", "reason": change.get("reason", "StageStalled"), "message": "why"}
    stalled |= {"observedGeneration": 1, "lastTransitionTime": "2026-11-20T12:00:00Z"}
    status = unavailable_status(
        "gs://b does not answer",
        {"conditions": [stalled]},
        generation=change.get("generation", 1),
        handled=change.get("handled", ""),
        now=NOW,
    )

    assert condition(status, "Stalled")["status"] == "False"
    assert condition(status, "Reconciling")["status"] == "True"


def test_verbs_are_named_by_what_they_say() -> None:
    assert verbs_digest({}) == ""
    assert verbs_digest({"a": "1"}) != verbs_digest({"a": "2"})


def test_a_front_without_a_point_in_the_budget_has_no_best() -> None:
    assert best_of(None) is None
    assert best_of({"best": None, "points": []}) is None


def test_an_ignored_annotation_is_told_of_once_and_stands_in_ready_while_it_is_there() -> None:
    sentence = "the annotation warpctl.dev/retry is ignored"
    first = cluster_status(seen(), FACTS, {}, NOW)
    told = cluster_status(seen(), replace(FACTS, ignored=(sentence,)), first, NOW)
    again = cluster_status(seen(iteration=1), replace(FACTS, ignored=(sentence,)), told, NOW)
    mended = cluster_status(seen(iteration=1), FACTS, again, NOW)

    assert [(each.reason, each.is_warning) for each in transitions(first, told)] == [("AnnotationIgnored", True)]
    assert condition(told, "Ready")["message"] == f"{condition(first, 'Ready')['message']}; {sentence}"
    assert condition(told, "Stalled") == condition(first, "Stalled")
    assert [each.reason for each in transitions(told, again)] == ["IterationMerged"]
    assert transitions(again, mended) == []
    assert sentence not in condition(mended, "Ready")["message"]
