"""Lines from two looks at a run, time left, durations: pure parts of the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from warpctl.cli.durations import duration_text, parse_duration
from warpctl.cli.eta import remaining
from warpctl.cli.transitions import transitions
from warpctl.errors import UserError
from warpctl.plan.observed import Attempt, AttemptState
from warpctl.spec.status import Progress, RunStatus, StageState, StageStatus

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()


def stage(stage_id: str, state: StageState, **fields: object) -> StageStatus:
    kind, iteration = stage_id.split("/", maxsplit=1)[0], int(stage_id.split("/")[1])
    return StageStatus(id=stage_id, kind=kind, key=stage_id, state=state, iteration=iteration, **fields)


def status(*stages: StageStatus) -> RunStatus:
    done = sum(each.state is StageState.SUCCEEDED for each in stages)
    return RunStatus(
        namespace="ml",
        name="demo",
        conditions=(),
        stages=stages,
        iteration=0,
        iterations=1,
        stages_succeeded=done,
        stages_total=len(stages),
    )


def lines(before: RunStatus | None, after: RunStatus, attempts=None, retry_at=None) -> list[str]:
    return transitions(before, after, attempts or {}, retry_at=retry_at or {}, now=NOW)


def failed(number: int) -> Attempt:
    return Attempt("rl/1/1", number, f"{number}-x", AttemptState.FAILED, NOW, NOW, message=f"broke {number}")


def test_a_stage_starts_and_finishes() -> None:
    queued = status(stage("rl/1/1", StageState.QUEUED))
    running = status(stage("rl/1/1", StageState.RUNNING, attempts=1))
    done = status(stage("rl/1/1", StageState.SUCCEEDED, attempts=1, started_at=at(0), ended_at=at(12.34)))

    assert lines(queued, running) == ["rl/1/1 started"]
    assert lines(running, done) == ["rl/1/1 finished in 12.3 s  [1/1 stages]"]
    assert lines(done, done) == []


def test_a_stage_that_started_and_finished_between_two_looks_is_no_cache_hit() -> None:
    queued = status(stage("rl/1/1", StageState.QUEUED))
    done = status(stage("rl/1/1", StageState.SUCCEEDED, attempts=1, started_at=at(0), ended_at=at(1)))

    assert lines(queued, done) == ["rl/1/1 finished in 1.0 s  [1/1 stages]"]


def test_what_was_published_before_is_one_line() -> None:
    names = [f"rl/1/{number}" for number in range(1, 9)]
    after = status(*(stage(name, StageState.SUCCEEDED) for name in names))
    pending = status(*(stage(name, StageState.PENDING) for name in names))
    expected = ["8 stages are published already (cached): rl/1/1, rl/1/2, rl/1/3, rl/1/4, rl/1/5, and 3 more"]

    assert lines(None, after) == expected
    assert lines(pending, after) == expected
    assert lines(None, status(stage("merge/1", StageState.SUCCEEDED))) == [
        "1 stage is published already (cached): merge/1"
    ]


def test_a_failure_says_when_it_is_tried_again() -> None:
    running = status(stage("rl/1/1", StageState.RUNNING, attempts=1))
    retrying = status(stage("rl/1/1", StageState.RETRYING, attempts=1, message="exit code 1: no"))

    retry_at = {"rl/1/1": NOW + timedelta(seconds=10)}

    assert lines(running, retrying, retry_at=retry_at) == ["rl/1/1 failed: exit code 1: no; retry in 10.0 s"]


def test_a_failure_that_was_retried_between_two_looks_is_told() -> None:
    running = status(stage("rl/1/1", StageState.RUNNING, attempts=1))
    second = status(stage("rl/1/1", StageState.RUNNING, attempts=2))
    attempts = {"rl/1/1": (failed(1), Attempt("rl/1/1", 2, "2-x", AttemptState.ACTIVE, NOW))}

    assert lines(running, second, attempts) == ["rl/1/1 attempt 1 failed: broke 1", "rl/1/1 started (attempt 2)"]


def test_a_worker_that_was_found_running_is_not_said_to_have_started() -> None:
    assert lines(None, status(stage("rl/1/1", StageState.RUNNING, attempts=2))) == ["rl/1/1 is running (attempt 2)"]


def test_time_left_is_unknown_before_an_rl_run_has_shown_its_pace() -> None:
    assert remaining(status(stage("rl/1/1", StageState.QUEUED)), units={}, slots=1) is None


def test_time_left_follows_the_longest_chain_or_the_cores() -> None:
    half = Progress(done=5, total=10, unit="steps", elapsed_seconds=20)
    seen = status(
        stage("rl/1/1", StageState.RUNNING, attempts=1, progress=half),  # 20 s left, 4 s a step
        stage("rl/1/2", StageState.QUEUED),  # 10 steps: 40 s
        stage("merge/1", StageState.WAITING),
        stage("rl/2/1", StageState.WAITING),  # 20 steps: 80 s
        stage("rl/2/2", StageState.WAITING),
    )
    units = {"rl/1/1": 10.0, "rl/1/2": 10.0, "rl/2/1": 20.0, "rl/2/2": 20.0}

    assert remaining(seen, units=units, slots=1) == pytest.approx(20 + 40 + 80 + 80)
    assert remaining(seen, units=units, slots=2) == pytest.approx(40 + 80)  # the slower member of each iteration


def test_nothing_left_takes_no_time() -> None:
    assert remaining(status(stage("rl/1/1", StageState.SUCCEEDED)), units={}, slots=1) == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (12.34, "12.3 s"), (59.96, "1m00s"), (62, "1m02s"), (7830, "2h10m"), (273_600, "3d04h")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_ages_are_read_and_refused() -> None:
    assert parse_duration("90s") == timedelta(seconds=90)
    assert parse_duration("7d") == timedelta(days=7)
    for text in ("", "7", "d", "-1d", "1.5h", "7 days"):
        with pytest.raises(UserError):
            parse_duration(text)
