"""The benchmark of the controller runs, without a look at the clock: few runs, the figures that are facts, the shape of the last line."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import controller

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

KEYS = [
    "rss_mib",
    "idle_requests_per_reconcile",
    "duplicate_jobs",
    "jobs_per_s",
    "jobs_per_s_over_plain_loop",
    "reconcile_p99_ms",
    "new_run_to_first_job_p99_s",
    "growth_100_to_1000",
]


def test_a_few_runs_have_no_duplicates_and_cost_nothing_when_nothing_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(controller, "LATE_RUNS", 2)
    monkeypatch.setattr("sys.argv", ["controller", "--runs", "2,4", "--idle-seconds", "2"])

    controller.main()

    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(last) == KEYS
    assert (last["duplicate_jobs"], last["idle_requests_per_reconcile"]) == (0, 0)
    assert min(last[name] for name in KEYS[3:]) > 0


def test_a_quantile_is_found_within_its_bucket() -> None:
    """10 passes, 5 of at most 1 ms, all of at most 5 ms: the median is 1 ms, the 90th percentile 1 + 4 * 4 / 5 = 4.2 ms."""
    buckets = {0.001: 5.0, 0.005: 10.0, float("inf"): 10.0}

    assert controller._quantile(buckets, 0.5) == pytest.approx(0.001)
    assert controller._quantile(buckets, 0.9) == pytest.approx(0.0042)
