"""Keys that want a pass: each at most once in the queue, never two passes of one key at a time, failures with growing pauses."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass
class WorkQueue(Generic[K]):
    """As client-go's rate-limited, delaying work queue. Times are monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 120.0
    _ready: deque[K] = field(default_factory=deque)
    _queued: set[K] = field(default_factory=set)
    _working: set[K] = field(default_factory=set)
    _again: set[K] = field(default_factory=set)
    """Added while a pass of it was under way: queued once that is done."""
    _delayed: list[tuple[float, int, K]] = field(default_factory=list)
    _due: dict[K, float] = field(default_factory=dict)
    _failures: dict[K, int] = field(default_factory=dict)
    _retry_at: dict[K, float] = field(default_factory=dict)
    """When the pause after the last failure is over."""
    _count: int = 0
    _is_shut: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, key: K) -> None:
        """Ask for a pass now."""
        with self._changed:
            self._add(key)
            self._changed.notify()

    def add_after(self, key: K, seconds: float) -> None:
        """Ask for a pass in a while; of several such wishes the earliest counts."""
        due = self.clock() + seconds
        with self._changed:
            if key in self._due and self._due[key] <= due:
                return
            self._due[key] = due
            self._count += 1
            heapq.heappush(self._delayed, (due, self._count, key))
            self._changed.notify()

    def add_failed(self, key: K) -> float:
        """Ask for a pass after a pause that doubles with every failure in a row; returns the pause, in seconds.

        Changes ask for passes meanwhile; those that fail before the pause is over are the same failure, and do not double it.
        """
        with self._changed:
            now = self.clock()
            if now < self._retry_at.get(key, now):
                pause = self._retry_at[key] - now
            else:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                longest = min(self.first_pause_seconds * 2 ** min(failures - 1, 20), self.longest_pause_seconds)
                pause = random.uniform(longest / 2, longest)  # noqa: S311  # jitter, no secret
                self._retry_at[key] = now + pause
        self.add_after(key, pause)
        return pause

    def forget_failures(self, key: K) -> None:
        """A pass of this key went well."""
        with self._changed:
            self._failures.pop(key, None)
            self._retry_at.pop(key, None)

    def take(self) -> K | None:
        """Wait for a key and mark it as under way; None once the queue is shut."""
        with self._changed:
            while True:
                wait = self._ripen()
                if self._is_shut:
                    return None
                if self._ready:
                    key = self._ready.popleft()
                    self._queued.discard(key)
                    self._working.add(key)
                    return key
                self._changed.wait(wait)

    def done(self, key: K) -> None:
        """The pass of this key is over."""
        with self._changed:
            self._working.discard(key)
            if key in self._again:
                self._again.discard(key)
                self._add(key)
                self._changed.notify()

    def shut(self) -> None:
        """Let every `take` return None; keys that wait are dropped."""
        with self._changed:
            self._is_shut = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._ready)

    def _add(self, key: K) -> None:
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.append(key)

    def _ripen(self) -> float | None:
        """Queue what is due; returns the seconds until the next one is, None when nothing waits."""
        now = self.clock()
        while self._delayed:
            due, _, key = self._delayed[0]
            if self._due.get(key) != due:  # an earlier wish has taken its place
                heapq.heappop(self._delayed)
                continue
            if due > now:
                return due - now
            heapq.heappop(self._delayed)
            del self._due[key]
            self._add(key)
        return None
