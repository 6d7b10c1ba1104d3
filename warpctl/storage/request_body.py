"""What a request carries, handed to the network piece by piece: of one large object every library makes copies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Final

_PIECE_BYTES: Final = 256 * 1024


class RequestBody:
    """Some bytes, one after the other; may be sent again and again. aiohttp takes it as any asynchronous iterable."""

    def __init__(self, *parts: bytes | memoryview) -> None:
        self._parts = [memoryview(part) for part in parts]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def pieces(self) -> Iterator[memoryview]:
        """Views of all of it, in order."""
        for part in self._parts:
            for start in range(0, len(part), _PIECE_BYTES):
                yield part[start : start + _PIECE_BYTES]

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        for piece in self.pieces():
            yield piece
