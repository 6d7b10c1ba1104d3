"""Small PNGs show the same pixels; whatever is not understood is left alone."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from warpctl.reports.png import small_png


def read(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def written(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def by_hand(pixels, filters):
    """A PNG whose rows have the given filters, uncompressed."""
    height, width, channels = pixels.shape
    rows, above = [], np.zeros((width, channels), np.uint8)
    for row, kind in zip(pixels, filters, strict=True):
        left = np.vstack([np.zeros((1, channels), np.uint8), row[:-1]])
        rows.append(bytes([kind]) + {0: row, 1: row - left, 2: row - above}[kind].tobytes())
        above = row
    body = b"".join(rows)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, {3: 2, 4: 6}[channels], 0, 0, 0)
    half = len(zlib.compress(body, 0)) // 2
    parts = zlib.compress(body, 0)[:half], zlib.compress(body, 0)[half:]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(k, d) for k, d in [(b"IHDR", header), (b"IDAT", parts[0]), (b"IDAT", parts[1]), (b"IEND", b"")]
    )


def test_up_to_256_colours_are_exact_under_every_filter_and_across_chunks():
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, size=(200, 3), dtype=np.uint8)
    pixels = colours[generator.integers(0, 200, size=(30, 40))]

    data = by_hand(pixels, [0, 1, 2] * 10)
    small = small_png(data)

    assert (read(small) == pixels).all()
    assert len(small) < 0.6 * len(data)


def test_beyond_256_colours_the_frequent_ones_are_exact_and_rare_ones_the_nearest_of_them():
    pixels = np.zeros((40, 20, 3), np.uint8)
    pixels[..., 0] = np.arange(20) * 12  # 20 columns, each of one frequent red
    pixels[0, :, 1] = 200
    pixels[1:31, :10, 2] = np.arange(1, 301).reshape(30, 10) % 250 + 1  # hundreds of rare blues
    pixels[1:31, :10, 1] = (np.arange(1, 301).reshape(30, 10) > 250) * 3

    shown = read(small_png(by_hand(pixels, [0] * 40)))

    assert len({tuple(each) for each in pixels.reshape(-1, 3)}) > 256
    assert len({tuple(each) for each in shown.reshape(-1, 3)}) <= 256
    assert (shown[31:] == pixels[31:]).all()
    assert abs(shown - pixels).max() <= 24


def test_transparent_pixels_become_white():
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:32] = (255, 0, 0, 255)

    shown = read(small_png(by_hand(pixels, [0] * 64)))

    assert shown[0, 0].tolist() == [255, 0, 0]
    assert shown[63, 63].tolist() == [255, 255, 255]


def test_other_kinds_of_png_are_left_as_they_are():
    grey = written(np.arange(256, dtype=np.uint8).reshape(16, 16))

    assert small_png(grey) == grey
