"""Chunk digests while bytes stream by, in bounded memory."""

from __future__ import annotations

from typing import Final

from blake3 import blake3

CHUNK_BYTES: Final = 16 * 1024 * 1024


class ChunkHasher:
    """Feed it a file in pieces of any size; `finish` gives the digest of each CHUNK_BYTES."""

    def __init__(self, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._chunk_bytes = chunk_bytes
        self._chunks: list[str] = []
        self._hasher = blake3()
        self._filled = 0
        self.size = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next piece."""
        view = memoryview(data).cast("B")
        self.size += len(view)
        while len(view):
            piece = view[: self._chunk_bytes - self._filled]
            self._hasher.update(piece)
            self._filled += len(piece)
            view = view[len(piece) :]
            if self._filled == self._chunk_bytes:
                self._close_chunk()

    def finish(self) -> tuple[str, ...]:
        """Digests of all chunks, the last one as short as it is; () for an empty file."""
        if self._filled:
            self._close_chunk()
        return tuple(self._chunks)

    def _close_chunk(self) -> None:
        self._chunks.append(self._hasher.hexdigest())
        self._hasher = blake3()
        self._filled = 0
