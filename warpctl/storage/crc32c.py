"""CRC32C, which GCS and S3 take and give: of bytes, of bytes in parts, and as they write it."""

from __future__ import annotations

import base64
from typing import Final

import google_crc32c

_PIECE_BYTES: Final = 1024 * 1024  # google_crc32c takes only bytes and keeps the interpreter lock meanwhile
_POLYNOMIAL: Final = 0x82F63B78  # Castagnoli's, RFC 3720, lowest bit first
_ONE: Final = 1 << 31


def crc32c(data: memoryview, crc: int = 0) -> int:
    """CRC32C of some bytes, going on from that of the bytes before them."""
    for start in range(0, len(data), _PIECE_BYTES):
        crc = google_crc32c.extend(crc, bytes(data[start : start + _PIECE_BYTES]))
    return crc


def joined_crc32c(before: int, crc: int, num_bytes: int) -> int:
    """CRC32C of some bytes, whose own is `before`, and `num_bytes` more, whose own is `crc`.

    A CRC is a remainder of polynomials over GF(2), and n more bytes multiply what is before them by x^8n.
    """
    return _times(before, _power(num_bytes)) ^ crc


def encoded(crc: int) -> str:
    """Base64 of its bytes, highest first."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def _times(left: int, right: int) -> int:
    """The product of two remainders; the highest bit is x^0."""
    product = 0
    for bit in range(31, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
    return product


def _power(num_bytes: int) -> int:
    """x^(8 num_bytes), by repeated squaring."""
    power, square = _ONE, _ONE >> 8
    while num_bytes:
        if num_bytes & 1:
            power = _times(power, square)
        square = _times(square, square)
        num_bytes >>= 1
    return power
