"""What time it is at the API server: its answers' Date, carried on by this machine's monotonic clock.

Every stamp in the cluster (a Job's end, a condition's transition) is of the control plane's clock, so pauses and ages are counted on
that one; this machine's wall clock may be wrong, and may be set at any moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

TOLERANCE_SECONDS = 5.0
"""How far API servers of one cluster may be apart: the time is that of the one ahead, and does not go back for the others."""


@dataclass
class ServerClock:
    """Safe to use from many threads. Before the first answer it is this machine's wall clock."""

    monotonic: Callable[[], float] = time.monotonic
    _offset: float | None = None
    """Server's POSIX time less monotonic time: the largest that an answer has proved, so it only grows, below a second late."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> datetime:
        """The server's time, in UTC; never goes back, unless the server's does."""
        with self._lock:
            offset = self._offset
        return datetime.now(UTC) if offset is None else datetime.fromtimestamp(self.monotonic() + offset, UTC)

    def heard(self, date: str | None, asked: float) -> None:
        """An answer to what was asked at the monotonic time `asked` has just come, stamped `date` (RFC 9110, whole seconds)."""
        try:
            stamp = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        least, most = stamp - self.monotonic(), stamp + 1.0 - asked
        with self._lock:
            if self._offset is None or least > self._offset or most + TOLERANCE_SECONDS < self._offset:
                self._offset = least
