"""How far a merge is: a line that is drawn again in place on a terminal, a line now and then without one; on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from warpctl.cli.durations import duration_text
from warpctl.cli.sizes import size_text
from warpctl.cli.terminal import bar, is_plain, note, symbols

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_PICTURES = 0.1
DONE_BEFORE_ETA = 0.02
NARROW = 90
"""Below this many columns there is no bar: the figures say the same."""


class MergeProgress:
    """Counts bytes, also from several threads, and shows them. Use it as a context manager around the merge."""

    def __init__(self, *, is_shown: bool = True, now: Callable[[], float] = time.monotonic) -> None:
        self._is_shown = is_shown
        self._now = now
        self._lock = threading.Lock()
        self._bytes = 0
        self._total_bytes = 0
        self._group = ""
        self._began = self._last = now()
        self._live: Live | None = None

    def start(self, total_bytes: int) -> None:
        """What was read until now were headers."""
        self._bytes, self._total_bytes = 0, total_bytes
        self._began = self._last = self._now()

    @property
    def seconds(self) -> float:
        return self._now() - self._began

    @property
    def speed(self) -> float:
        """Bytes read and written per second."""
        return self._bytes / max(self.seconds, 1e-9)

    def on_bytes(self, num_bytes: int) -> None:
        """Some more were read or written."""
        with self._lock:
            self._bytes += num_bytes
            if self._total_bytes:
                self._show()

    def on_group(self, number: int, count: int) -> None:
        """Group `number`, from 0, begins."""
        self._group = f"group {number + 1}/{count}"

    def line(self, columns: int) -> str:
        """group 12/30  [bar]  41%  1.2 of 3.4 GB  0.8 GB/s  ETA 12.0 s."""
        if not self._group:
            return "merging  starting"  # kernels are loaded, small files copied
        done = min(self._bytes / self._total_bytes, 1.0) if self._total_bytes else 1.0
        parts = ["merging", self._group]
        if columns >= NARROW:
            parts.append(bar(done, symbols(sys.stderr)))
        parts += [
            f"{done:.0%}",
            f"{size_text(min(self._bytes, self._total_bytes))} of {size_text(self._total_bytes)}",
            f"{size_text(round(self.speed))}/s",
        ]
        if DONE_BEFORE_ETA <= done < 1:
            parts.append(f"ETA {duration_text(self.seconds * (1 - done) / done)}")
        return "  ".join(parts)

    def _show(self) -> None:
        elapsed = self._now() - self._last
        if self._live is not None:
            if elapsed >= SECONDS_BETWEEN_PICTURES:
                self._last = self._now()
                text = Text(self.line(self._live.console.width), no_wrap=True, overflow="ellipsis")
                self._live.update(text, refresh=True)
        elif self._is_shown and elapsed >= SECONDS_BETWEEN_LINES:
            self._last = self._now()
            note(self.line(0))

    def __enter__(self) -> Self:
        if self._is_shown and sys.stderr.isatty():
            console = Console(stderr=True, highlight=False, color_system=None if is_plain() else "auto")
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
