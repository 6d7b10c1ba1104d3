"""What happened between two looks at a run, as lines: for logs, pipes and people who scroll back. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from warpctl.cli.counts import count_text
from warpctl.cli.durations import duration_text, seconds_between
from warpctl.plan.observed import Attempt, AttemptState
from warpctl.spec.status import RunStatus, StageState, StageStatus

Attempts = Mapping[str, Sequence[Attempt]]


def transitions(
    before: RunStatus | None, after: RunStatus, attempts: Attempts, *, retry_at: Mapping[str, datetime], now: datetime
) -> list[str]:
    """One line for each stage that changed, one for all that were published before we looked.

    `attempts` and `retry_at` are by stage key; the latter says when a failed stage is tried again.
    """
    known = {stage.id: stage for stage in before.stages} if before else {}
    lines: list[str] = []
    reused: list[str] = []
    for stage in after.stages:
        old = known.get(stage.id)
        if old is not None and (old.state, old.attempts) == (stage.state, stage.attempts):
            continue
        if stage.state is StageState.SUCCEEDED and _was_there(old, stage):
            reused.append(stage.id)
            continue
        tries = attempts.get(stage.key, ())
        lines += _failures_between(old, stage, tries)
        wait = (retry_at[stage.key] - now).total_seconds() if stage.key in retry_at else None
        lines += _lines(stage, after, wait, is_first_look=before is None)
    if reused:
        verb = "is" if len(reused) == 1 else "are"
        lines.insert(0, f"{count_text(len(reused), 'stage')} {verb} published already (cached): {_listed(reused)}")
    return lines


def _was_there(old: StageStatus | None, stage: StageStatus) -> bool:
    """Published without an attempt of ours that we saw run."""
    if old is None or old.state in (StageState.PENDING, StageState.SUCCEEDED):
        return True
    return stage.attempts == old.attempts and old.state is not StageState.RUNNING


def _failures_between(old: StageStatus | None, stage: StageStatus, attempts: Sequence[Attempt]) -> list[str]:
    """Attempts that failed and were followed by others between the two looks."""
    first = old.attempts if old else stage.attempts
    return [
        f"{stage.id} attempt {attempt.number} failed: {attempt.message}"
        for attempt in attempts[:-1]
        if attempt.state is AttemptState.FAILED and attempt.number >= first and _was_running(old)
    ]


def _was_running(old: StageStatus | None) -> bool:
    # A failure that was followed by a wait has been told when the wait began.
    return old is not None and old.state is StageState.RUNNING


def _lines(stage: StageStatus, after: RunStatus, wait_seconds: float | None, *, is_first_look: bool) -> list[str]:
    lines: list[str] = []
    match stage.state:
        case StageState.RUNNING:
            number = f" (attempt {stage.attempts})" if stage.attempts > 1 else ""
            lines.append(f"{stage.id} {'is running' if is_first_look else 'started'}{number}")
        case StageState.SUCCEEDED:
            seconds = seconds_between(stage.started_at, stage.ended_at)
            took = f" in {duration_text(seconds)}" if seconds is not None else ""
            lines.append(f"{stage.id} finished{took}  [{after.stages_succeeded}/{after.stages_total} stages]")
        case StageState.RETRYING:
            again = "it is tried again" if wait_seconds is None else f"retry in {duration_text(max(wait_seconds, 0.0))}"
            lines.append(f"{stage.id} failed: {stage.message}; {again}")
        case StageState.STALLED:
            lines.append(f"{stage.id} stalled: {stage.message}")
    return lines


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])}, and {len(names) - 5} more"
