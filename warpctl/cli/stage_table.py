"""Stages as rows: an icon and a word for the state, progress, times. Pure but for symbols."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from warpctl.cli.durations import duration_text, seconds_between
from warpctl.cli.table import table_text
from warpctl.cli.terminal import CYAN, DIM, GREEN, RED, YELLOW, Symbols, symbols
from warpctl.spec.status import Progress, RunStatus, StageState, StageStatus

STYLES = {
    StageState.RUNNING: CYAN,
    StageState.RETRYING: YELLOW,
    StageState.STALLED: RED,
    StageState.SUCCEEDED: GREEN,
    StageState.PENDING: DIM,
    StageState.WAITING: DIM,
    StageState.QUEUED: "",
    StageState.UNNEEDED: DIM,
}


def icon(state: StageState, marks: Symbols) -> str:
    """The icon that goes before the word."""
    return {
        StageState.RUNNING: marks.running,
        StageState.RETRYING: marks.retrying,
        StageState.STALLED: marks.failed,
        StageState.SUCCEEDED: marks.done,
        StageState.UNNEEDED: marks.skipped,
    }.get(state, marks.waiting)


PHASE = "phase"
"""The field in which a worker says what it is waiting for or busy with, when that is not its steps."""


def progress_text(progress: Progress | None) -> str:
    """step 12/40 and up to three figures, then what the worker waits for if it says so; "" when nothing is known."""
    if progress is None:
        return ""
    fields = dict(progress.fields)
    phase = fields.pop(PHASE, "")
    figures = [f"{name} {_figure(value)}" for name, value in list(fields.items())[:3]]
    parts = [progress.counted, *figures]
    return "  ".join([*parts, *([f"({phase})"] if phase else [])])


def _figure(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def remaining_seconds(progress: Progress | None) -> float | None:
    """Time left at the pace of this attempt, whatever earlier ones did; None before its first step."""
    if progress is None or progress.done <= progress.done_at_start or progress.elapsed_seconds <= 0:
        return None
    done_here = progress.done - progress.done_at_start
    return progress.elapsed_seconds * max(progress.total - progress.done, 0) / done_here


def stages_text(status: RunStatus, *, is_wide: bool) -> str:
    """One row a stage."""
    marks = symbols(sys.stdout)
    columns = ["STAGE", "STATE", "ATTEMPTS", "PROGRESS", "TIME", *(["KEY", "ATTEMPT", "MESSAGE"] if is_wide else [])]
    rows = []
    for stage in status.stages:
        row = [stage.id, f"{icon(stage.state, marks)} {stage.state}", str(stage.attempts) if stage.attempts else "-"]
        row += [progress_text(stage.progress) or "-", time_text(stage)]
        rows.append([*row, *([stage.key or "-", stage.attempt_id or "-", stage.message or "-"] if is_wide else [])])
    styles = {index: STYLES[stage.state] for index, stage in enumerate(status.stages)}
    return table_text(columns, rows, styles=styles)


def time_text(stage: StageStatus) -> str:
    """How long it took, or has taken so far."""
    if stage.state is StageState.RUNNING and stage.progress is not None:
        return duration_text(stage.progress.elapsed_seconds)
    seconds = seconds_between(stage.started_at, stage.ended_at)
    return "-" if seconds is None else duration_text(seconds)


def reasons(stages: Iterable[StageStatus]) -> list[str]:
    """One line for each stage that failed, with the worker's last words."""
    states = (StageState.STALLED, StageState.RETRYING)
    return [f"{stage.id} {stage.state.lower()}: {stage.message}" for stage in stages if stage.state in states]
