"""A chart's PNG made small: a palette of at most 256 colours, compressed well; a sixth of the renderer's bytes.

Charts have few colours, smooth edges aside; shades beyond the palette are rounded. PNG (ISO/IEC 15948), non-interlaced,
8 bits a channel, as renderers write it; anything else is left as it is.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {2: 3, 6: 4}  # colour type: RGB, RGBA
_NONE, _SUB, _UP = 0, 1, 2  # filters of a row
_MAX_COLOURS = 256
_NUM_FAR = 64

Bytes = NDArray[np.uint8]


def small_png(data: bytes) -> bytes:
    """The same picture on white, in fewer bytes; `data` itself where it is of a kind that is not handled."""
    pixels_HWC = _pixels(data)
    if pixels_HWC is None:
        return data
    small = _indexed(_on_white(pixels_HWC))
    return small if len(small) < len(data) else data


def _pixels(data: bytes) -> Bytes | None:
    """(height, width, channels); None for what is not handled."""
    chunks = _chunks(data)
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if depth != 8 or colour not in _CHANNELS or interlace:
        return None
    channels = _CHANNELS[colour]
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    rows_HWC = raw[:, 1:].reshape(height, width, channels)
    pixels_HWC = np.empty_like(rows_HWC)
    above = np.zeros((width, channels), np.uint8)
    for y, filtered in enumerate(raw[:, 0]):
        if filtered == _NONE:
            above = rows_HWC[y]
        elif filtered == _SUB:  # differences from the left neighbour, modulo 256
            above = np.cumsum(rows_HWC[y], axis=0, dtype=np.uint8)
        elif filtered == _UP:
            above = rows_HWC[y] + above
        else:
            return None
        pixels_HWC[y] = above
    return pixels_HWC


def _chunks(data: bytes) -> dict[bytes, bytes]:
    """Chunks by type, those of one type joined."""
    found: dict[bytes, bytes] = {}
    place = len(_SIGNATURE)
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        found[kind] = found.get(kind, b"") + data[place + 8 : place + 8 + length]
        place += 12 + length
    return found


def _on_white(pixels_HWC: Bytes) -> Bytes:
    if pixels_HWC.shape[2] == 3:
        return pixels_HWC
    alpha = pixels_HWC[..., 3:].astype(np.uint16)
    mixed: Bytes = ((pixels_HWC[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return mixed


def _indexed(pixels_HWC: Bytes) -> bytes:
    """Exact where 256 colours are enough; else each by the nearest of the palette."""
    height, width = pixels_HWC.shape[:2]
    packed = (pixels_HWC.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=2, dtype=np.uint32)
    colours, places, counts = np.unique(packed.ravel(), return_inverse=True, return_counts=True)
    channels_C3 = np.stack([colours >> 16, (colours >> 8) & 255, colours & 255], axis=1).astype(np.int32)
    palette_K3 = channels_C3[_palette(channels_C3, counts)]
    nearest_C = np.empty(len(colours), np.uint8)
    for start in range(0, len(colours), 1024):  # a block of distances at a time
        block = channels_C3[start : start + 1024, None] - palette_K3
        nearest_C[start : start + 1024] = (block**2).sum(axis=2).argmin(axis=1)
    rows = np.zeros((height, 1 + width), np.uint8)  # filter none
    rows[:, 1:] = nearest_C[places].reshape(height, width)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    palette = palette_K3.astype(np.uint8).tobytes()
    parts = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, body) for kind, body in parts)


def _palette(channels_C3: NDArray[np.int32], counts_C: NDArray[np.intp]) -> list[int]:
    """Places of the colours kept: the most frequent ones, then again and again the one farthest from all that are kept."""
    order = np.argsort(-counts_C, kind="stable")
    kept = [int(place) for place in order[: _MAX_COLOURS - _NUM_FAR]]
    distance_C = np.full(len(channels_C3), np.iinfo(np.int32).max, np.int32)
    for place in kept:
        distance_C = np.minimum(distance_C, ((channels_C3 - channels_C3[place]) ** 2).sum(axis=1))
    while len(kept) < _MAX_COLOURS and distance_C.max() > 0:
        kept.append(int(distance_C.argmax()))
        distance_C = np.minimum(distance_C, ((channels_C3 - channels_C3[kept[-1]]) ** 2).sum(axis=1))
    return kept


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
