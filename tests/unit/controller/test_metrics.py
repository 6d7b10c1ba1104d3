"""What Prometheus reads of runs and attempts."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from warpctl.controller.metrics import MAX_RUNS_SHOWN, Metrics
from warpctl.controller.world import WarpRunObject
from warpctl.executors.job_facts import JobFacts, PodFacts
from warpctl.plan.observed import AttemptState

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
JOB = JobFacts(
    namespace="ml",
    name="rl-0123456789ab-cdef-a1",
    uid="u",
    owner_uid="o",
    run="demo",
    key="k",
    storage="gs://b",
    number=1,
    gpus=8,
    state=AttemptState.COMPLETE,
    created_at=NOW - timedelta(seconds=100),
    started_at=NOW - timedelta(seconds=90),
    ended_at=NOW,
    reason="",
    message="",
    is_deleting=False,
    is_suspended=False,
    nodes=1,
    has_expiry=False,
    labels={},
)
POD = PodFacts("ml", "p", "pu", "u", 0, NOW, NOW - timedelta(seconds=40), False, "", 0, "Completed", "", False)


def a_run(name: str, reason: str = "", **status: Any) -> WarpRunObject:
    conditions = {"conditions": [{"type": "Ready", "status": "False", "reason": reason}]} if reason else {}
    return WarpRunObject("ml", name, "uid", 1, "1", {}, {**conditions, **status}, {}, (), False)


def samples(metrics: Metrics, *runs: WarpRunObject) -> dict[tuple[str, ...], float]:
    """(name, label values ...) -> value."""
    text = metrics.text(runs).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_runs_are_counted_by_reason_and_shown_one_by_one() -> None:
    found = samples(
        Metrics(), a_run("a", "Progressing", retries=2, gpuHours="1.5"), a_run("b", "Succeeded"), a_run("c")
    )

    assert {key: value for key, value in found.items() if key[0] == "warpctl_runs"} == {
        ("warpctl_runs", "Progressing"): 1,
        ("warpctl_runs", "Succeeded"): 1,
        ("warpctl_runs", "Unknown"): 1,
    }
    assert {key[1:] for key in found if key[0] == "warpctl_run_info"} == {
        ("a", "ml", "Progressing"),
        ("b", "ml", "Succeeded"),
        ("c", "ml", "Unknown"),
    }
    assert (found[("warpctl_run_retries",)], found[("warpctl_gpu_seconds",)]) == (2, 5400)


def test_a_run_that_is_gone_or_has_moved_on_leaves_no_series() -> None:
    metrics = Metrics()
    samples(metrics, a_run("a", "Progressing"), a_run("b", "Progressing"))

    found = samples(metrics, a_run("a", "Succeeded"))

    assert {key for key in found if key[0] in ("warpctl_run_info", "warpctl_runs")} == {
        ("warpctl_run_info", "a", "ml", "Succeeded"),
        ("warpctl_runs", "Succeeded"),
    }


def test_of_too_many_runs_the_unfinished_are_shown() -> None:
    many = [a_run(f"done-{i:05}", "Succeeded") for i in range(MAX_RUNS_SHOWN)]
    found = samples(Metrics(), *many, a_run("zzz", "StageStalled"))

    shown = {key for key in found if key[0] == "warpctl_run_info"}
    assert len(shown) == MAX_RUNS_SHOWN
    assert ("warpctl_run_info", "zzz", "ml", "StageStalled") in shown
    assert found[("warpctl_run_info_omitted",)] == 1
    assert found[("warpctl_runs", "Succeeded")] == MAX_RUNS_SHOWN


def test_the_duration_of_an_attempt_begins_with_its_container() -> None:
    metrics = Metrics()
    metrics.on_end(JOB, (POD,), NOW)
    metrics.on_end(replace(JOB, state=AttemptState.FAILED), (), NOW)
    metrics.on_end(replace(JOB, name="merge-0-0-a1", state=AttemptState.ACTIVE, ended_at=None), (POD,), NOW)
    metrics.on_end(replace(JOB, name="evaluate-0-0-a1", state=AttemptState.ACTIVE, ended_at=None), (), NOW)

    found = samples(metrics)
    sums = {key[1:]: value for key, value in found.items() if key[0] == "warpctl_stage_duration_seconds_sum"}
    assert sums == {("rl", "Succeeded"): 40, ("rl", "Failed"): 90, ("merge", "Stopped"): 40}


def test_labels_are_bounded_but_for_the_runs_own() -> None:
    metrics = Metrics()
    metrics.on_answer("GET", "/apis/warpctl.dev/v1alpha1/namespaces/ml/warpruns/some-run", 200, 0.1)
    metrics.on_end(JOB, (POD,), NOW)

    for line in metrics.text([a_run("some-run", "Progressing")]).decode().splitlines():
        if not line.startswith("#") and re.search(r"some-run|0123456789ab|ml", line):
            assert line.startswith("warpctl_run_info{"), line
