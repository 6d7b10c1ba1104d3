"""Ticks the engine until a run has ended one way or another. Remembers nothing that the next `warpctl run` would miss."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from warpctl.cli.counts import count_text
from warpctl.cli.stop_signals import StopSignals
from warpctl.cli.transitions import Attempts
from warpctl.engine import Engine
from warpctl.errors import Interrupted, StoreUnavailableError, WarpctlError
from warpctl.executors.local import LocalExecutor
from warpctl.plan.observed import Attempt, AttemptState, Observed
from warpctl.plan.progress import summarise
from warpctl.plan.truth import judge
from warpctl.spec.status import STALLED, SUCCEEDED, SUSPENDED, RunStatus, StageState

PAUSE_SECONDS = 0.25
PAUSE_SECONDS_REMOTE = 2.0
"""Between passes over a store that is asked through a network."""
PAUSE_AFTER_CHANGE_SECONDS = 0.02
LONGEST_BACKOFF_SECONDS = 30.0

_AT_WORK = (StageState.RUNNING, StageState.QUEUED, StageState.RETRYING)


class Display(Protocol):
    """Who shows what happens."""

    def show(self, status: RunStatus, attempts: Attempts, retry_at: Mapping[str, datetime], now: datetime) -> None:
        """A new look at the run."""
        ...

    def say(self, text: str) -> None:
        """One line that stays."""
        ...


@dataclass(frozen=True, slots=True)
class Stopped:
    """How the workers of an interrupted run ended."""

    num_saved: int
    num_killed: int


@dataclass
class RunLoop:
    """One `warpctl run`."""

    engine: Engine
    executor: LocalExecutor
    display: Display
    signals: StopSignals
    now: Callable[[], datetime]

    def drive(self) -> RunStatus:
        """The last status of a run that succeeded, stalled or is suspended. `Interrupted` after Ctrl-C or SIGTERM.

        An error that ends the loop stops the workers too: nobody would watch over them.
        """
        try:
            return self._drive()
        except Interrupted:
            raise
        except BaseException:
            self.stop_workers("the run failed")
            raise

    def _drive(self) -> RunStatus:
        before: list[tuple[str, str, int]] = []
        failures = 0
        while True:
            if self.signals.count:
                stopped = self.stop_workers("interrupted by the user")
                raise Interrupted(_interrupted_text(stopped))
            try:
                now = self.now()
                status = self.engine.tick(now)
                attempts = self.executor.attempts()
            except StoreUnavailableError as error:
                failures += 1
                wait = min(2.0 ** (failures - 1), LONGEST_BACKOFF_SECONDS)
                self.display.say(
                    f"the store does not answer ({error.message}); workers go on, next look in {wait:.0f} s"
                )
                self.signals.wait(wait)
                continue
            failures = 0
            self.display.show(status, attempts, self._retry_at(status, attempts, now), now)
            if self._is_over(status, attempts):
                return status
            seen = [(stage.id, str(stage.state), stage.attempts) for stage in status.stages]
            self.signals.wait(self._pause() if seen == before else PAUSE_AFTER_CHANGE_SECONDS)
            before = seen

    def stop_workers(self, reason: str) -> Stopped:
        """Ask every worker to save and leave, and wait for it; a further Ctrl-C kills them."""
        polite = min(self.signals.count, 1)  # before anything is said: a second Ctrl-C may come at once
        asked = self._active()
        if asked:
            count = count_text(len(asked), "worker")
            self.display.say(
                f"stopping: {count} asked to save and leave, at most {self.executor.grace_seconds:.0f} s "
                "(Ctrl-C again kills at once)"
            )
        while active := self._active():
            for attempt in active:
                if self.signals.count > polite:
                    self.executor.kill(attempt)
                else:
                    self.executor.stop(attempt, reason)
            self._show_stopping()
            self.signals.wait(PAUSE_SECONDS)
        ids = {attempt.attempt_id for attempt in asked}
        ended = [each for group in self.executor.attempts().values() for each in group if each.attempt_id in ids]
        killed = sum(each.exit_code in (None, 128 + signal.SIGKILL) for each in ended)
        return Stopped(len(ended) - killed, killed)

    def _show_stopping(self) -> None:
        """Progress while the workers save; nothing is planned any more."""
        now = self.now()
        with contextlib.suppress(WarpctlError):  # a look is not worth leaving workers behind
            status = summarise(self.engine.run, self.engine.observe(), now)
            self.display.show(status, self.executor.attempts(), {}, now)

    def _active(self) -> list[Attempt]:
        groups = self.executor.attempts().values()
        return [each for group in groups for each in group if each.state is AttemptState.ACTIVE]

    def _is_over(self, status: RunStatus, attempts: Attempts) -> bool:
        if any(each.state is AttemptState.ACTIVE for group in attempts.values() for each in group):
            return False  # also after success: a worker may still be leaving its log
        if status.is_true(SUCCEEDED) or status.is_true(SUSPENDED):
            return True
        return status.is_true(STALLED) and not any(stage.state in _AT_WORK for stage in status.stages)

    def _retry_at(self, status: RunStatus, attempts: Attempts, now: datetime) -> dict[str, datetime]:
        observed = Observed(
            attempts={key: tuple(group) for key, group in attempts.items()}, retry_since=self.engine.retry_since
        )
        policy = self.engine.run.spec.retry
        keys = [stage.key for stage in status.stages if stage.state is StageState.RETRYING]
        found = {key: judge(key, observed, policy, now).retry_at for key in keys}
        return {key: instant for key, instant in found.items() if instant is not None}

    def _pause(self) -> float:
        return PAUSE_SECONDS if self.engine.store.local_path("x") is not None else PAUSE_SECONDS_REMOTE


def _interrupted_text(stopped: Stopped) -> str:
    if stopped.num_killed:
        saved = count_text(stopped.num_saved, "worker")
        return f"interrupted: {saved} saved and left, {stopped.num_killed} had to be killed"
    if stopped.num_saved:
        return "interrupted: all workers saved and left"
    return "interrupted"
