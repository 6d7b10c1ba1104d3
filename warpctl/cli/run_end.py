"""What `warpctl run` says when a run has ended."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from warpctl.cli.front_text import front_text, report_place
from warpctl.cli.local_run import LocalRun
from warpctl.cli.run_reference import RunReference
from warpctl.cli.terminal import GREEN, RED, YELLOW, next_steps, note, paint, result, symbols
from warpctl.errors import EXIT_DONE, EXIT_FAILED
from warpctl.spec.status import STALLED, SUSPENDED, RunStatus, StageState

TAIL_LINES = 8


def tell_succeeded(reference: RunReference, status: RunStatus, began: datetime) -> int:
    """The front, the best point, the report."""
    made = [stage.id for stage in status.stages if _was_started(stage.started_at, began)]
    suffix = "" if made else " (cached)"
    icon = paint(symbols(sys.stderr).done, GREEN, sys.stderr)
    note(f"{icon} {reference.run.full_name} succeeded: {status.stages_total} stages are published{suffix}")
    front = front_text(reference)
    if front is not None:
        result(front.table)
        if front.best:
            result(front.best)
    place = report_place(reference)
    if place:
        result(f"report: {place}")
    next_steps(
        f"warpctl status {reference.typed}",
        f"warpctl export {reference.typed} --max-kl 10 --to DIR  # the best point below that KL, as a model folder",
    )
    return EXIT_DONE


def _was_started(started_at: str, began: datetime) -> bool:
    return bool(started_at) and datetime.fromisoformat(started_at) >= began


def tell_stalled(reference: RunReference, local: LocalRun, status: RunStatus) -> int:
    """The reason, the exit code, the worker's last lines, and where the whole log is."""
    icon = paint(symbols(sys.stderr).failed, RED, sys.stderr)
    note(f"{icon} {reference.run.full_name} stalled: {status.condition(STALLED).message}")
    stalled = [stage for stage in status.stages if stage.state is StageState.STALLED]
    attempts = local.executor.attempts()
    for stage in stalled[:3]:
        for attempt in attempts.get(stage.key, ())[-1:]:
            code = "none: it was killed" if attempt.exit_code is None else str(attempt.exit_code)
            log = local.executor.log_file(attempt)
            note("")
            note(f"{stage.id}, attempt {attempt.number}, exit code {code}")
            for line in _tail(log):
                note(f"  {line}")
            note(f"  log: {log}")
    first = f" {stalled[0].id}" if stalled else ""
    next_steps(
        f"warpctl logs {reference.typed}{first}",
        f"warpctl run {reference.typed}  # tries again; what is published stays",
    )
    return EXIT_FAILED


def tell_suspended(reference: RunReference, status: RunStatus) -> int:
    """Why nothing runs. A user who asked for it gets 0; a budget that ran out before the end is a run that did not finish."""
    icon = paint(symbols(sys.stderr).waiting, YELLOW, sys.stderr)
    note(f"{icon} {reference.run.full_name} is suspended: {status.condition(SUSPENDED).message}")
    next_steps(
        f"warpctl status {reference.typed}",
        f"warpctl run {reference.typed}  # after spec.suspend is false, or spec.budget.gpuHours larger",
    )
    return EXIT_DONE if reference.run.spec.suspend else EXIT_FAILED


def _tail(log: Path) -> Iterator[str]:
    if log.exists():
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
        yield from [line for line in lines if line.strip()][-TAIL_LINES:]
