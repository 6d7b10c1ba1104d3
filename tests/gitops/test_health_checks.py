"""The health checks of manifests/gitops, run by Argo CD's and Flux's engines on statuses that the controller has written."""

from __future__ import annotations

import copy
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.gitops.health_engines import argo_act, argo_actions, argo_health, flux_status, kstatus
from tests.gitops.recorded import kinds, load
from tests.gitops.test_monitoring import MOVING
from warpctl import names
from warpctl.spec.reasons import Reason
from warpctl.spec.status import READY, RECONCILING, STALLED, SUCCEEDED, SUSPENDED

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]  # the first one builds the engines

EXPECTED = {
    # kind: Argo CD, Flux accepted, Flux completed, Flux without a health check
    "new": ("Progressing", "Unknown", "Unknown", "Current"),
    "waiting": ("Progressing", "Current", "InProgress", "InProgress"),
    "running": ("Progressing", "Current", "InProgress", "InProgress"),
    "retrying": ("Progressing", "Current", "InProgress", "InProgress"),
    "store-unavailable": ("Progressing", "Current", "InProgress", "InProgress"),
    "invalid-annotation": ("Progressing", "Current", "InProgress", "InProgress"),
    "partly-stalled": ("Degraded", "Failed", "Failed", "InProgress"),
    "stage-stalled": ("Degraded", "Failed", "Failed", "Failed"),
    "not-allowed": ("Degraded", "Failed", "Failed", "Failed"),
    "suspended": ("Suspended", "Current", "InProgress", "InProgress"),
    "cancelled": ("Suspended", "Current", "InProgress", "InProgress"),
    "succeeded": ("Healthy", "Current", "Current", "Current"),
    "edited": ("Progressing", "InProgress", "InProgress", "InProgress"),
    "deleting": ("Progressing", "InProgress", "InProgress", "Terminating"),
}


def test_every_recorded_kind_has_its_expected_health() -> None:
    assert kinds() == sorted(EXPECTED)


@pytest.mark.parametrize("kind", EXPECTED)
def test_health_of_a_recorded_status(kind: str) -> None:
    obj = load(kind)

    seen = argo_health(obj)[0], flux_status("accepted", obj), flux_status("completed", obj), kstatus(obj)

    assert seen == EXPECTED[kind]


@pytest.mark.parametrize("reason", sorted(set(Reason) - MOVING - {Reason.STAGE_STALLED}))
def test_a_run_that_was_refused_is_degraded_for_whatever_reason(reason: str) -> None:
    obj = load("not-allowed")
    for condition in obj["status"]["conditions"]:
        condition["reason"] = reason

    assert argo_health(obj)[0] == "Degraded"
    assert argo_health(obj)[1].startswith(f"{reason}: spec.storage.uri must lie below")
    assert {flux_status("accepted", obj), flux_status("completed", obj)} == {"Failed"}


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("waiting", "Insufficient cpu"),
        ("stage-stalled", "no pad token"),
        ("cancelled", "cancelled"),
        ("succeeded", "every iteration is merged and evaluated"),
        ("edited", "newest spec"),
        ("deleting", "being deleted"),
        ("new", "not looked at it"),
    ],
)
def test_argo_cd_shows_the_words_of_the_condition_that_matters(kind: str, says: str) -> None:
    assert says in argo_health(load(kind))[1]


def _without(*path: str) -> Any:
    def spoil(obj: dict[str, Any]) -> None:
        for part in path[:-1]:
            obj = obj[part]
        del obj[path[-1]]

    return spoil


def _unknown(obj: dict[str, Any]) -> None:
    for condition in obj["status"]["conditions"]:
        condition["status"] = "Unknown"


def _bare(obj: dict[str, Any]) -> None:
    obj["status"]["conditions"] = [{"type": each["type"], "status": "False"} for each in obj["status"]["conditions"]]


def _none(obj: dict[str, Any]) -> None:
    obj["status"]["conditions"] = []


def _foreign(obj: dict[str, Any]) -> None:
    obj["status"]["conditions"] = [{"type": "Available", "status": "True", "reason": "X", "message": ""}]


@pytest.mark.parametrize("kind", ["running", "succeeded", "stage-stalled"])
@pytest.mark.parametrize(
    "spoil",
    [
        _without("status"),
        _without("status", "conditions"),
        _without("status", "observedGeneration"),
        _unknown,
        _bare,
        _none,
        _foreign,
    ],
)
def test_a_status_that_lacks_something_is_in_progress_and_never_an_error_healthy_or_failed(
    kind: str, spoil: Any
) -> None:
    obj = load(kind)
    spoil(obj)

    assert argo_health(obj)[0] == "Progressing"
    for recipe in ("accepted", "completed"):
        assert flux_status(recipe, obj) in ("InProgress", "Unknown")


@pytest.mark.parametrize("kind", ["suspended", "succeeded", "stage-stalled", "running"])
def test_what_was_said_of_an_older_spec_counts_for_nothing(kind: str) -> None:
    obj = load(kind)
    obj["metadata"]["generation"] += 1

    assert argo_health(obj)[0] == "Progressing"
    assert {flux_status("accepted", obj), flux_status("completed", obj)} == {"InProgress"}


def test_a_run_that_goes_is_never_healthy() -> None:
    obj = load("succeeded")
    obj["metadata"]["deletionTimestamp"] = "2026-11-21T12:00:00Z"

    assert argo_health(obj) == ("Progressing", "It is being deleted")
    assert {flux_status("accepted", obj), flux_status("completed", obj)} == {"InProgress"}


def test_all_five_conditions_are_recorded_wherever_there_is_a_status() -> None:
    for kind in set(kinds()) - {"new"}:
        found = {each["type"] for each in load(kind)["status"]["conditions"]}
        assert found == {READY, RECONCILING, STALLED, SUSPENDED, SUCCEEDED}, kind


@pytest.mark.parametrize(
    ("kind", "usable"),
    [
        ("new", {"suspend"}),
        ("running", {"suspend"}),
        ("stage-stalled", {"suspend", "retry"}),
        ("cancelled", {"resume"}),
        ("succeeded", set()),
    ],
)
def test_argo_cd_offers_what_makes_sense(kind: str, usable: set[str]) -> None:
    offered = argo_actions(load(kind))

    assert set(offered) == {"suspend", "resume", "retry"}
    assert {name for name, may in offered.items() if may} == usable


def test_argo_cds_actions_write_annotations_and_nothing_else() -> None:
    running = load("running")
    suspended = argo_act("suspend", running)
    resumed = argo_act("resume", load("cancelled"))
    retried = argo_act("retry", running)

    assert suspended["metadata"]["annotations"] == {names.CANCEL: "suspended in Argo CD"}
    assert names.CANCEL not in resumed["metadata"]["annotations"]
    instant = retried["metadata"]["annotations"][names.RETRY]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", instant)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(instant)).total_seconds()) < 60
    for after in (suspended, retried):
        plain = copy.deepcopy(after)
        del plain["metadata"]["annotations"]
        assert plain["spec"] == running["spec"]
        assert set(plain) == set(running)
