"""What every worker program does around its own work: read its input, obey SIGTERM, report, exit with a class of failure.

A worker module is `def main(context: Context) -> None` and `run(main)`. Success is the commit marker, not the exit code:
a worker whose stage is already committed leaves at once with 0.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType

import structlog
from stamina.instrumentation import RetryDetails, RetryHook, set_on_retry_hooks

from warpctl import artifacts
from warpctl.errors import EXIT_DONE, EXIT_FINAL, EXIT_RETRYABLE, Interrupted, WarpctlError
from warpctl.spec.stage_input import StageInput
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.telemetry.log import Transcript, logger

PROGRESS_SECONDS_LOCAL = 0.5
PROGRESS_SECONDS_REMOTE = 15.0
PROGRESS_SECONDS_LOG = 10.0
"""A line of progress in the log at most this often, but for the first and the last."""


class StopFlag:
    """Set by SIGTERM (and Ctrl-C); a worker looks at it where it can save and leave."""

    def __init__(self) -> None:
        self._set = False

    def install(self) -> None:
        """Make SIGTERM and SIGINT set this flag instead of ending the process."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._set = True

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def raise_if_set(self) -> None:
        """Raise `Interrupted` when the process was asked to stop: for places where there is nothing to save."""
        if self._set:
            raise Interrupted("asked to stop; what was finished so far is kept")


@dataclass
class Context:
    """What a worker's `main` is given."""

    stage_input: StageInput
    store: Store
    publication: Publication
    log: structlog.stdlib.BoundLogger
    stop: StopFlag = field(default_factory=StopFlag)
    rank: int = 0
    """Which of the stage's nodes this is."""
    num_nodes: int = 1
    started: float = field(default_factory=time.monotonic)
    _last_progress: float = 0.0
    _last_logged: float | None = None
    _done_at_start: int | None = None

    def report_progress(self, done: int, total: int, unit: str, **fields: float | str) -> None:
        """Leave `done` of `total` `unit` in progress.json (a view, overwritten at a bounded rate; never an input) and in the log.

        `fields` are a few figures worth seeing while waiting, such as the current reward; a text called `phase` says what
        the worker waits for ("loading", "waiting for reward").
        """
        if self._done_at_start is None:
            self._done_at_start = done  # what an earlier attempt did: it says nothing of this one's pace
        now = time.monotonic()
        if self._last_logged is None or done >= total or now - self._last_logged >= PROGRESS_SECONDS_LOG:
            self._last_logged = now
            self.log.info("progress", **{unit: f"{done}/{total}", **fields})
        pause = PROGRESS_SECONDS_LOCAL if self.store.local_path("x") is not None else PROGRESS_SECONDS_REMOTE
        if done < total and now - self._last_progress < pause:
            return
        self._last_progress = now
        stage = self.stage_input
        body = {
            "done": done,
            "total": total,
            "unit": unit,
            "doneAtStart": self._done_at_start,
            "elapsedSeconds": round(now - self.started, 3),
            "at": datetime.now(UTC).isoformat(),
            **fields,
        }
        path = artifacts.progress(stage.kind, stage.key, stage.attempt_id)
        try:
            self.store.write(path, json.dumps(body).encode())
        except (WarpctlError, OSError) as error:  # a view is never worth a failed attempt
            self.log.warning("progress not written", error=str(error))

    def gpu_seconds(self) -> float:
        """GPU-seconds that this attempt has used so far: GPUs times wall time."""
        return self.stage_input.resources.gpus * (time.monotonic() - self.started)


def run(main: Callable[[Context], None]) -> None:
    """Run one worker and leave the process with the exit code of its outcome (see errors.py)."""
    transcript = Transcript()
    log = logger(transcript)
    stop = StopFlag()
    stop.install()
    try:
        stage_input = StageInput.from_environment(os.environ)
        log = log.bind(run=f"{stage_input.namespace}/{stage_input.run}", stage=stage_input.stage_id)
        log = log.bind(attempt=stage_input.attempt_id)
        store = Store.open(stage_input.storage)
        # As torchrun calls them; see render/pod.py.
        rank, num_nodes = int(os.environ.get("PET_NODE_RANK", "0")), int(os.environ.get("PET_NNODES", "1"))
    except (WarpctlError, ValueError) as error:
        log.error("worker cannot start", error=str(error), hint=getattr(error, "hint", ""))  # noqa: TRY400  # one line
        sys.exit(getattr(error, "exit_code", EXIT_FINAL))
    set_on_retry_hooks([_say_retries(log)])
    context = Context(stage_input, store, _publication(store, stage_input), log, stop, rank=rank, num_nodes=num_nodes)
    code = _attempt(main, context)
    # From here on there is nothing to save: a late SIGTERM must not turn a success into a failure.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _leave_log(store, stage_input, transcript, log)
    sys.stdout.flush()
    sys.exit(code)


def _say_retries(log: structlog.stdlib.BoundLogger) -> RetryHook:
    """Repeated requests of the store and of sources, as lines of this worker's log."""

    def say(details: RetryDetails) -> None:
        cause = str(details.caused_by).splitlines()
        log.warning(
            "asking again",
            what=details.name,
            attempt=details.retry_num,
            wait_seconds=details.wait_for,
            cause=f"{type(details.caused_by).__name__}: {cause[0][:200] if cause else ''}",
        )

    return say


def _publication(store: Store, stage_input: StageInput) -> Publication:
    return Publication(store, stage_input, now=lambda: datetime.now(UTC))


def _attempt(main: Callable[[Context], None], context: Context) -> int:
    stage, log = context.stage_input, context.log
    try:
        if context.store.stat(artifacts.marker(stage.kind, stage.key)) is not None:
            log.info("already committed")
            return EXIT_DONE
        log.info("started", pid=os.getpid())
        main(context)
        log.info(
            "published" if context.publication.is_committed else "done", seconds=time.monotonic() - context.started
        )
    except WarpctlError as error:
        log.error(type(error).__name__, error=error.message, hint=error.hint)  # noqa: TRY400  # one line, no traceback
        return error.exit_code
    except OSError as error:
        if error.errno == errno.ENOSPC:
            log.error("disk full", error=str(error), hint="free some space; what is published stays")  # noqa: TRY400
        else:
            log.exception("failed")
        return EXIT_RETRYABLE
    except Exception:
        log.exception("failed")
        return EXIT_RETRYABLE
    return EXIT_DONE


def _leave_log(store: Store, stage: StageInput, transcript: Transcript, log: structlog.stdlib.BoundLogger) -> None:
    try:
        store.write(artifacts.log(stage.kind, stage.key, stage.attempt_id), transcript.text().encode())
    except (WarpctlError, OSError) as error:
        log.warning("log not stored", error=str(error))
