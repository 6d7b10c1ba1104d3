"""Uploads in parts: the producer fills a part while those before it are on their way, in bounded memory."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Protocol

import google_crc32c

PART_BYTES: Final = 16 * 1024 * 1024
"""What one request for a part of a file carries. S3 allows 10,000 parts: 156 GiB a file; GCS wants a multiple of 256 KiB."""
_CRC_PIECE_BYTES: Final = 1024 * 1024  # google_crc32c takes only bytes and keeps the interpreter lock meanwhile


class Upload(Protocol):
    """One object that is being sent; it appears with `finish` or `put`, and never after `abort`."""

    parallel: int
    """Parts that may be sent at once; with 1 they come in order."""

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


class PartSink:
    """Collects bytes into parts and sends them from threads: at most one part more in memory than is on its way.

    An error of a part is raised by the next `write`, or by `close`. `size` counts what was written.
    """

    def __init__(self, upload: Upload, *, part_bytes: int = PART_BYTES) -> None:
        self.size = 0
        self._upload = upload
        self._part_bytes = part_bytes
        self._part = bytearray(part_bytes)
        self._filled = 0
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._num_buffers = 1
        self._sent: list[Future[None]] = []
        self._pool: ThreadPoolExecutor | None = None

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        view = memoryview(data).cast("B")
        rest = view
        while rest:
            if self._filled == self._part_bytes:
                self._hand_over()
            piece = rest[: self._part_bytes - self._filled]
            self._part[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            rest = rest[len(piece) :]
        self.size += len(view)
        return len(view)

    def close(self) -> None:
        """Send what is left and make the object; returns when it is there."""
        if self._pool is None:
            self._upload.put(memoryview(self._part)[: self._filled])
            return
        self._submit()
        for future in self._sent:
            future.result()
        self._upload.finish(len(self._sent))
        self._pool.shutdown()

    def abort(self) -> None:
        """Wait for what is on its way, then forget it all."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._upload.abort()

    def _hand_over(self) -> None:
        """Send the full part and go on in another buffer, waiting for one when as many as allowed are on their way."""
        for future in self._sent:
            if future.done():
                future.result()
        self._submit()
        if self._num_buffers <= self._upload.parallel:
            self._num_buffers += 1
            self._part = bytearray(self._part_bytes)
        else:
            self._part = self._free.get()
        self._filled = 0

    def _submit(self) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._upload.parallel, thread_name_prefix="upload")
        self._sent.append(self._pool.submit(self._send, len(self._sent), self._part, self._filled))

    def _send(self, number: int, part: bytearray, num_bytes: int) -> None:
        try:
            self._upload.send(number, memoryview(part)[:num_bytes])
        finally:
            self._free.put(part)


def crc32c(data: memoryview, crc: int = 0) -> int:
    """CRC32C of some bytes, going on from that of the bytes before them."""
    for start in range(0, len(data), _CRC_PIECE_BYTES):
        crc = google_crc32c.extend(crc, bytes(data[start : start + _CRC_PIECE_BYTES]))
    return crc
