"""The invariants of a status are ones: a good history has no violation, and each bad one has its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.cluster.status_history import violations

NOW = datetime(2026, 11, 21, 12, 10, tzinfo=UTC)
START, LATER = "2026-11-21T12:00:01Z", "2026-11-21T12:05:00Z"


def a_version(number: int, true: str, since: dict[str, str], **status: Any) -> dict[str, Any]:
    conditions = [
        {
            "type": kind,
            "status": "True" if kind in true.split() else "False",
            "reason": "Because",
            "message": "so",
            "observedGeneration": 1,
            "lastTransitionTime": since.get(kind, START),
        }
        for kind in ("Ready", "Reconciling", "Stalled", "Suspended", "Succeeded")
    ]
    counts = {"stagesSucceeded": 2, "stagesTotal": 9, "stagesText": "2/9", "iteration": 1, "stages": []}
    return {
        "metadata": {
            "name": "demo",
            "resourceVersion": str(number),
            "generation": 1,
            "creationTimestamp": "2026-11-21T12:00:00Z",
        },
        "status": {"observedGeneration": 1, "handled": "", "conditions": conditions, **counts, **status},
    }


def a_good_history() -> list[dict[str, Any]]:
    done = dict.fromkeys(("Ready", "Reconciling", "Succeeded"), LATER)
    return [
        {"metadata": a_version(1, "", {})["metadata"]},  # as it was created
        a_version(2, "Reconciling", {}),
        a_version(3, "Reconciling", {}, stages=[{"id": "rl/1/1", "state": "Running"}]),
        a_version(4, "Ready Succeeded", done, stagesSucceeded=9, stagesText="9/9", iteration=2),
    ]


def condition(run: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in run["status"]["conditions"] if each["type"] == kind)
    return found


Break = Callable[[list[dict[str, Any]]], object]
BREAKS: dict[str, Break] = {
    "conditions are": lambda h: h[1]["status"]["conditions"].pop(),
    "is above generation": lambda h: h[2]["status"].update(observedGeneration=2),
    "of another": lambda h: condition(h[2], "Ready").update(observedGeneration=0),
    "no reason": lambda h: condition(h[2], "Ready").update(reason=""),
    "not in the run's life": lambda h: condition(h[3], "Ready").update(lastTransitionTime="2026-11-21T17:00:00Z"),
    "Ready and Succeeded differ": lambda h: condition(h[2], "Ready").update(status="True"),
    "something is to be done": lambda h: condition(h[3], "Stalled").update(status="True"),
    "Suspended and Reconciling": lambda h: condition(h[2], "Suspended").update(status="True"),
    "nobody knows": lambda h: condition(h[2], "Reconciling").update(status="False"),
    "Succeeded with 9/9": lambda h: h[3]["status"].update(stagesSucceeded=8),
    "a status was there": lambda h: h[2].pop("status"),
    "observedGeneration went back": lambda h: h[3]["status"].update(observedGeneration=0),
    "did not change": lambda h: condition(h[2], "Stalled").update(lastTransitionTime=LATER),
    "went back to 2026": lambda h: condition(h[3], "Ready").update(lastTransitionTime="2026-11-21T12:00:00Z"),
    "stagesSucceeded went back": lambda h: h[2]["status"].update(stagesSucceeded=1),
    "iteration went back": lambda h: h[2]["status"].update(iteration=0),
    "had failed for good": lambda h: h[2]["status"].update(stages=[{"id": "rl/1/1", "state": "Stalled"}]),
    "is not any more": lambda h: h.append(a_version(5, "Reconciling", {}, stagesSucceeded=9, iteration=2)),
}


def test_a_good_history_has_no_violation() -> None:
    assert violations(a_good_history(), now=NOW) == []


@pytest.mark.parametrize("said", BREAKS)
def test_a_bad_history_has_the_violation_that_it_is(said: str) -> None:
    history = copy.deepcopy(a_good_history())
    BREAKS[said](history)

    assert any(said in each for each in violations(history, now=NOW)), violations(history, now=NOW)


def test_another_spec_begins_anew() -> None:
    history = a_good_history()
    again = a_version(5, "Reconciling", {}, stagesSucceeded=3, iteration=0)
    again["metadata"]["generation"] = again["status"]["observedGeneration"] = 2
    for kind in again["status"]["conditions"]:
        kind |= {"observedGeneration": 2, "lastTransitionTime": LATER}
    condition(again, "Stalled")["lastTransitionTime"] = condition(again, "Suspended")["lastTransitionTime"] = START

    assert violations([*history, again], now=NOW) == []
