"""When a failed stage is tried again. Failures of the place and failures of the worker have counts of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from warpctl.plan.observed import Attempt, AttemptState, FailureClass
from warpctl.spec.compute import Retry


@dataclass(frozen=True, slots=True)
class RetryAt:
    """The next attempt may start at this instant."""

    instant: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """There is no next attempt, for this reason (a CamelCase constant) and in these words."""

    reason: str
    message: str


def decide(attempts: Sequence[Attempt], policy: Retry, *, since: datetime | None) -> RetryAt | GiveUp:
    """What follows the last of `attempts`, which has failed; failures that ended until `since` are pardoned.

    Backoff doubles with every failure of the same kind: backoffSeconds * 2**(n-1), at most backoffMaxSeconds.
    """
    last = attempts[-1]
    ended = last.ended_at or last.started_at
    failed = [attempt for attempt in attempts if attempt.state is AttemptState.FAILED]
    counted = [attempt for attempt in failed if since is None or (attempt.ended_at or attempt.started_at) > since]
    if last not in counted or last.failure is FailureClass.INTERRUPTED:
        return RetryAt(ended)
    if last.failure is FailureClass.FINAL:
        return GiveUp("FinalFailure", f"attempt {last.number} cannot succeed: {last.message}")
    kind = last.failure or FailureClass.APPLICATION
    limit = policy.limit if kind is FailureClass.APPLICATION else policy.infrastructure_limit
    count = sum(1 for attempt in counted if (attempt.failure or FailureClass.APPLICATION) is kind)
    if count > limit:
        name = "retry.limit" if kind is FailureClass.APPLICATION else "retry.infrastructureLimit"
        return GiveUp("RetriesExhausted", f"{count} attempts failed, {name} is {limit}; the last one: {last.message}")
    # The exponent is bounded before it is used: 2**10000 is no number of seconds.
    pause = min(policy.backoff_seconds * 2 ** min(count - 1, 20), policy.backoff_max_seconds)
    return RetryAt(ended + timedelta(seconds=pause))
