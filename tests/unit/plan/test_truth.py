"""The truth table, row by row, and the retry rules behind its third row."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.builders.world import EPOCH
from warpctl.plan.observed import Attempt, AttemptState, Committed, FailureClass, Observed
from warpctl.plan.retry import GiveUp, RetryAt, decide
from warpctl.plan.truth import Verdict, judge
from warpctl.spec.compute import Retry

KEY = "k"
POLICY = Retry(limit=2, infrastructure_limit=4, backoff_seconds=10, backoff_max_seconds=25)
MARKER = {KEY: Committed("manifest", "content")}


def an_attempt(number: int = 1, state: AttemptState = AttemptState.ACTIVE, **fields: object) -> Attempt:
    return replace(Attempt(KEY, number, f"{number}-x", state, EPOCH), **fields)


def failed(number: int, failure: FailureClass, *, at: float = 0) -> Attempt:
    ended = EPOCH + timedelta(seconds=at)
    return an_attempt(number, AttemptState.FAILED, failure=failure, ended_at=ended, message="why")


COMPLETE = an_attempt(1, AttemptState.COMPLETE, ended_at=EPOCH)
SHARED_OUT = replace(COMPLETE, is_shared_out=True)


@pytest.mark.parametrize(
    ("marker", "attempts", "verdict"),
    [
        (MARKER, (), Verdict.SUCCEEDED),
        (MARKER, (an_attempt(),), Verdict.SUCCEEDED),
        (MARKER, (COMPLETE,), Verdict.SUCCEEDED),
        (MARKER, (failed(1, FailureClass.FINAL),), Verdict.SUCCEEDED),
        ({}, (COMPLETE,), Verdict.STALLED),
        ({}, (replace(COMPLETE, is_stopping=True),), Verdict.MAY_START),
        ({}, (replace(COMPLETE, is_foreign=True),), Verdict.MAY_START),
        ({}, (SHARED_OUT,), Verdict.BACKING_OFF),
        (MARKER, (SHARED_OUT,), Verdict.SUCCEEDED),
        ({}, (failed(1, FailureClass.APPLICATION),), Verdict.BACKING_OFF),
        ({}, (failed(1, FailureClass.FINAL),), Verdict.STALLED),
        ({}, (failed(1, FailureClass.INTERRUPTED),), Verdict.MAY_START),
        ({}, (an_attempt(),), Verdict.RUNNING),
        ({}, (an_attempt(is_stopping=True),), Verdict.RUNNING),
        ({}, (), Verdict.MAY_START),
    ],
)
def test_the_table(marker: dict[str, Committed], attempts: tuple[Attempt, ...], verdict: Verdict) -> None:
    observed = Observed(committed=marker, attempts={KEY: attempts} if attempts else {})

    assert judge(KEY, observed, POLICY, EPOCH).verdict is verdict


def test_the_worker_that_lied_is_named_with_both_facts() -> None:
    message = judge(KEY, Observed(attempts={KEY: (COMPLETE,)}), POLICY, EPOCH).message

    assert "exit code 0" in message
    assert "commit marker is not in the store" in message


def test_several_nodes_none_of_which_saw_the_parts_of_all_are_a_failure_of_the_place() -> None:
    earlier = failed(1, FailureClass.INFRASTRUCTURE)
    observed = Observed(attempts={KEY: (earlier, replace(SHARED_OUT, number=2))})

    waiting = judge(KEY, observed, POLICY, EPOCH)
    assert (waiting.verdict, waiting.number) == (Verdict.BACKING_OFF, 3)
    assert waiting.retry_at == EPOCH + timedelta(seconds=20)
    assert "all nodes of attempt 2 ended with exit code 0 and its artifact is not there" in waiting.message
    assert judge(KEY, observed, POLICY, EPOCH + timedelta(seconds=20)).verdict is Verdict.MAY_START


def test_nodes_that_never_see_the_parts_of_all_end_some_day() -> None:
    attempts = tuple(replace(SHARED_OUT, number=number) for number in range(1, 6))
    given_up = judge(KEY, Observed(attempts={KEY: attempts}), POLICY, EPOCH)

    assert (given_up.verdict, given_up.reason) == (Verdict.STALLED, "RetriesExhausted")
    assert "retry.infrastructureLimit is 4" in given_up.message


def test_a_broken_artifact_is_no_success() -> None:
    for attempts in ({}, {KEY: (COMPLETE,)}):
        observed = Observed(committed=MARKER, broken=frozenset({KEY}), attempts=attempts)

        assert judge(KEY, observed, POLICY, EPOCH).verdict is Verdict.MAY_START


def test_the_next_number_follows_the_highest_seen() -> None:
    attempts = (failed(3, FailureClass.INTERRUPTED), failed(7, FailureClass.INTERRUPTED))

    assert judge(KEY, Observed(attempts={KEY: attempts}), POLICY, EPOCH).number == 8


def test_a_complete_attempt_from_before_the_pardon_may_start_again() -> None:
    observed = Observed(attempts={KEY: (COMPLETE,)}, retry_since=EPOCH + timedelta(seconds=1))

    assert judge(KEY, observed, POLICY, EPOCH + timedelta(seconds=2)).verdict is Verdict.MAY_START


@pytest.mark.parametrize(("count", "seconds"), [(1, 10), (2, 20), (3, 25), (4, 25)])
def test_backoff_doubles_up_to_its_bound(count: int, seconds: float) -> None:
    attempts = [failed(number, FailureClass.INFRASTRUCTURE) for number in range(1, count + 1)]

    assert decide(attempts, POLICY, since=None) == RetryAt(EPOCH + timedelta(seconds=seconds))


def test_infrastructure_failures_do_not_count_toward_the_limit() -> None:
    attempts = [failed(number, FailureClass.INFRASTRUCTURE) for number in range(1, 4)]
    attempts.append(failed(4, FailureClass.APPLICATION))

    assert decide(attempts, POLICY, since=None) == RetryAt(EPOCH + timedelta(seconds=10))


def test_the_limit_counts_further_attempts() -> None:
    attempts = [failed(number, FailureClass.APPLICATION) for number in range(1, 4)]

    assert isinstance(decide(attempts[:2], POLICY, since=None), RetryAt)
    given_up = decide(attempts, POLICY, since=None)
    assert isinstance(given_up, GiveUp)
    assert given_up.reason == "RetriesExhausted"
    assert "retry.limit is 2" in given_up.message


def test_infrastructure_failures_have_a_limit_of_their_own() -> None:
    attempts = [failed(number, FailureClass.INFRASTRUCTURE) for number in range(1, 6)]

    assert isinstance(decide(attempts, POLICY, since=None), GiveUp)


def test_failures_from_before_the_pardon_do_not_count() -> None:
    attempts = [failed(number, FailureClass.FINAL) for number in range(1, 4)]

    assert decide(attempts, POLICY, since=EPOCH + timedelta(seconds=1)) == RetryAt(EPOCH)
