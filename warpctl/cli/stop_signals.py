"""SIGINT, SIGTERM and the end of a child, as something that a loop can wait for."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Any, Self


class StopSignals:
    """Counts requests to stop (Ctrl-C or SIGTERM). Use it as a context manager in the main thread."""

    def __init__(self) -> None:
        self.count = 0
        self._previous: dict[int, Any] = {}
        self._reader, self._writer = -1, -1
        self._wakeup = -1

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number, handler in ((signal.SIGINT, self._stop), (signal.SIGTERM, self._stop), (signal.SIGCHLD, _ignore)):
            self._previous[number] = signal.signal(number, handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond the next signal (a worker that ended sends SIGCHLD)."""
        select.select([self._reader], [], [], seconds)
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:
            return

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """A handler at all is what makes SIGCHLD wake the loop."""
