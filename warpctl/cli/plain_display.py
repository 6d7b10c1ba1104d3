"""Progress without a terminal: one line a transition, on stderr."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from warpctl.cli.terminal import note
from warpctl.cli.transitions import Attempts, transitions
from warpctl.spec.status import RunStatus


class PlainDisplay:
    """Prints what changed since the last look."""

    def __init__(self) -> None:
        self._before: RunStatus | None = None

    def show(self, status: RunStatus, attempts: Attempts, retry_at: Mapping[str, datetime], now: datetime) -> None:
        for line in transitions(self._before, status, attempts, retry_at=retry_at, now=now):
            note(line)
        self._before = status

    def say(self, text: str) -> None:
        note(text)
