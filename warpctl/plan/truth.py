"""The one truth table: what a stage's marker and its newest attempt say together.

marker   newest attempt   means
present  anything         succeeded
absent   complete         the worker lied or the store lost it: stalled; not started where the attempt is no witness
absent   complete, of     none of several nodes saw the parts of all, as where a store lists late what is new: failed,
         several parts    a failure of the place; the next attempt finds all parts done
absent   failed           failed: retried by retry.py, else stalled
absent   active           running
absent   none             not started
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from warpctl.plan.observed import Attempt, AttemptState, FailureClass, Observed
from warpctl.plan.retry import GiveUp, decide
from warpctl.spec.compute import Retry


class Verdict(StrEnum):
    SUCCEEDED = "Succeeded"
    RUNNING = "Running"
    BACKING_OFF = "BackingOff"
    MAY_START = "MayStart"
    STALLED = "Stalled"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one stage; `number` is that of the attempt that would be next."""

    verdict: Verdict
    number: int = 1
    reason: str = ""
    message: str = ""
    retry_at: datetime | None = None


def judge(key: str, observed: Observed, policy: Retry, now: datetime) -> Judgement:
    """Apply the table to the stage with this key."""
    attempts = observed.attempts.get(key, ())
    number = 1 + max((attempt.number for attempt in attempts), default=0)
    if observed.is_committed(key):
        return Judgement(Verdict.SUCCEEDED, number)
    # A stopping attempt still writes: nobody else starts before it has gone.
    if any(attempt.state is AttemptState.ACTIVE for attempt in attempts):
        return Judgement(Verdict.RUNNING, number)
    if not attempts:
        return Judgement(Verdict.MAY_START, number)
    if attempts[-1].state is AttemptState.COMPLETE:
        # No witness: an artifact that was lost is being made anew, here or by the run whose attempt it is.
        if key in observed.broken or attempts[-1].is_stopping or attempts[-1].is_foreign:
            return Judgement(Verdict.MAY_START, number)
        if not attempts[-1].is_shared_out:
            return _completed_without_marker(attempts[-1], number, observed)
    attempts = tuple(map(_as_it_ended_without_marker, attempts))
    decision = decide(attempts, policy, since=observed.retry_since)
    if isinstance(decision, GiveUp):
        return Judgement(Verdict.STALLED, number, decision.reason, decision.message)
    if decision.instant > now:
        return Judgement(Verdict.BACKING_OFF, number, "BackingOff", attempts[-1].message, decision.instant)
    return Judgement(Verdict.MAY_START, number, message=attempts[-1].message)


def _as_it_ended_without_marker(attempt: Attempt) -> Attempt:
    is_lost = attempt.state is AttemptState.COMPLETE and not attempt.is_stopping and not attempt.is_foreign
    if not (is_lost and attempt.is_shared_out):
        return attempt
    message = (
        f"all nodes of attempt {attempt.number} ended with exit code 0 and its artifact is not there: "
        "perhaps the store did not list the files of the others in time"
    )
    return replace(attempt, state=AttemptState.FAILED, failure=FailureClass.INFRASTRUCTURE, message=message)


def _completed_without_marker(last: Attempt, number: int, observed: Observed) -> Judgement:
    # An artifact that was published and has gone since is no lie of the attempt that made it: pardoned like a failure.
    ended = last.ended_at or last.started_at
    if observed.retry_since is not None and ended <= observed.retry_since:
        return Judgement(Verdict.MAY_START, number)
    message = (
        f"attempt {last.number} ({last.attempt_id}) ended with exit code 0, but its commit marker is not in the store: "
        "the worker lied or the store lost it"
    )
    return Judgement(Verdict.STALLED, number, "MarkerMissing", message)
