"""Uploads in parts: the producer fills a part while those before it are on their way, in memory that a process bounds."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Protocol

PART_BYTES: Final = 16 * 1024 * 1024
"""What one request for a part of a file carries. S3 allows 10,000 parts: 156 GiB a file; GCS wants a multiple of 256 KiB."""
PARTS_AT_ONCE: Final = 4
"""Parts of one file on their way at once."""
_MOST_PARTS_AT_ONCE: Final = 6
"""Those of all files of a process."""


class Upload(Protocol):
    """One object that is being sent; it appears with `finish` or `put`, and never after `abort`."""

    def begin(self) -> int:
        """Called once, before the first of several parts: how many may be sent at once. With 1 they come in order."""
        ...

    def put(self, data: memoryview) -> None:
        """Send the object at once: it was not longer than a part."""
        ...

    def send(self, number: int, part: memoryview) -> None:
        """Send one part, numbered from 0; all but the last are PART_BYTES long. The memory is the sender's again after."""
        ...

    def finish(self, num_parts: int) -> None:
        """Make the object of its parts."""
        ...

    def abort(self) -> None:
        """Forget what was sent."""
        ...

    def mismatch(self, details: Mapping[str, Any]) -> str:
        """How the service's description of the stored object differs from what was sent; "" when it does not."""
        ...


class PartBuffers:
    """Memory for the parts of files that are written at the same time: one each, and some more for all of them together.

    Whoever waits for one gets it: a file keeps only the part that it fills, and what is on its way comes back.
    """

    def __init__(self, part_bytes: int = PART_BYTES, *, most_at_once: int = _MOST_PARTS_AT_ONCE) -> None:
        self.part_bytes = part_bytes
        self._most_at_once = most_at_once
        self._changed = threading.Condition()
        self._free: list[bytearray] = []
        self._num_files = 0
        self._num_buffers = 0

    def join(self) -> bytearray:
        """One more file; its first buffer."""
        with self._changed:
            self._num_files += 1
        return self.take()

    def take(self) -> bytearray:
        """A buffer for the next part; waits until there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._num_buffers < self._num_files + self._most_at_once)
            if self._free:
                return self._free.pop()
            self._num_buffers += 1
        return bytearray(self.part_bytes)

    def give_back(self, buffer: bytearray) -> None:
        """Not used any more."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()

    def leave(self, buffer: bytearray) -> None:
        """One file less; `buffer` is its last one, empty if it has none."""
        with self._changed:
            self._num_files -= 1
            if buffer:
                self._free.append(buffer)
            most = self._num_files + self._most_at_once if self._num_files else 0
            while self._free and self._num_buffers > most:
                self._free.pop()
                self._num_buffers -= 1
            self._changed.notify_all()


_buffers = PartBuffers()


def buffers_bytes(num_files: int) -> int:
    """The most memory that parts of so many files take that a process writes to object stores at the same time."""
    return (num_files + min(num_files * PARTS_AT_ONCE, _MOST_PARTS_AT_ONCE)) * PART_BYTES


class PartSink:
    """Collects bytes into parts and sends them from threads: at most one part more in memory than is on its way.

    An error of a part is raised by the next `write`, or by `close`. `size` counts what was written. It must be ended by
    `close`, or by `abort` if that raises.
    """

    def __init__(self, upload: Upload, *, buffers: PartBuffers = _buffers) -> None:
        self.size = 0
        self._upload = upload
        self._buffers = buffers
        self._part = buffers.join()
        self._filled = 0
        self._sent: list[Future[None]] = []
        self._pool: ThreadPoolExecutor | None = None
        self._may_send = threading.Semaphore(0)
        self._is_over = False

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        view = memoryview(data).cast("B")
        rest = view
        while rest:
            if self._filled == self._buffers.part_bytes:
                self._hand_over()
            if not self._part:
                self._part = self._buffers.take()
            piece = rest[: len(self._part) - self._filled]
            self._part[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            rest = rest[len(piece) :]
        self.size += len(view)
        return len(view)

    def close(self) -> None:
        """Send what is left and make the object; returns when it is there."""
        if self._pool is None:
            self._upload.put(memoryview(self._part)[: self._filled])
        else:
            self._hand_over()
            for future in self._sent:
                future.result()
            self._upload.finish(len(self._sent))
            self._pool.shutdown()
        self._leave()

    def abort(self) -> None:
        """Wait for what is on its way, then forget it all."""
        if self._pool is not None:
            self._pool.shutdown()
        self._leave()
        self._upload.abort()

    def _leave(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._buffers.leave(self._part)

    def _hand_over(self) -> None:
        """Send the part as far as it is filled, waiting while as many as allowed are on their way."""
        if self._pool is None:
            at_once = self._upload.begin()
            self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="upload")
            self._may_send = threading.Semaphore(at_once)
        self._may_send.acquire()
        try:
            for future in self._sent:
                if future.done():
                    future.result()
            self._sent.append(self._pool.submit(self._send, len(self._sent), self._part, self._filled))
        except BaseException:
            self._may_send.release()
            raise
        self._part, self._filled = bytearray(), 0

    def _send(self, number: int, part: bytearray, num_bytes: int) -> None:
        try:
            self._upload.send(number, memoryview(part)[:num_bytes])
        finally:
            self._buffers.give_back(part)
            self._may_send.release()
