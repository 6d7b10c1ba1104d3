"""Compiled kernels give the bits of numpy, whatever the type, the length, the number of members and the values."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from warpctl.merging import kernels
from warpctl.merging.liti import liti, put_back, round_once
from warpctl.merging.task_vector import BLOCK_ELEMENTS, products
from warpctl.storage.bfloat16 import bfloat16_to_float32

LENGTHS = [
    *range(20),
    63,
    64,
    65,
    127,
    128,
    129,
    135,
    136,
    137,
    255,
    257,
    1000,
    1031,
    4097,
    BLOCK_ELEMENTS - 1,
    BLOCK_ELEMENTS,
]
ALL_16_BITS = np.arange(1 << 16, dtype=np.uint16)


def weights(num_rows, size, seed=0):
    rng = np.random.default_rng(seed)
    init = rng.standard_normal(size)
    return (
        np.array([init, *(init + 0.01 * rng.standard_normal((num_rows - 1, size)))])
        .astype(np.float32)
        .astype(np.float64)
    )


@pytest.mark.parametrize("size", LENGTHS)
@pytest.mark.parametrize("num_rows", [2, 3, 5, 9])
def test_products_have_the_bits_of_numpy(num_rows, size):
    block = weights(num_rows, size)
    expected = products(block.copy())
    assert kernels.products(block).tobytes() == expected.tobytes()


@pytest.mark.parametrize("num_rows", [2, 3, 9])
def test_products_are_right_to_a_few_units_of_float64(num_rows):
    block = weights(num_rows, 1031)
    rows = [block[0], *(row - block[0] for row in block[1:])]
    exact = [[math.fsum(a * b) for b in rows] for a in rows]
    scale = [[math.fsum(abs(a * b)) for b in rows] for a in rows]
    assert (np.abs(kernels.products(block.copy()) - exact) <= 1e-14 * np.array(scale)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 7, 128, 1030])
@pytest.mark.parametrize("row", [0, 2])
def test_nan_and_inf_are_seen_in_the_products(bad, place, row):
    block = weights(3, 1031)
    block[row, place] = bad
    assert not np.isfinite(kernels.products(block)).all()


def test_every_bfloat16_widens_exactly():
    wide = np.empty(1 << 16)
    kernels.widen(ALL_16_BITS, wide)
    with np.errstate(invalid="ignore"):  # numpy says so of a signalling NaN
        np.testing.assert_array_equal(wide, bfloat16_to_float32(ALL_16_BITS).astype(np.float64))
    assert (np.signbit(wide) == (ALL_16_BITS >= 0x8000))[~np.isnan(wide)].all()


def test_every_float16_widens_exactly():
    wide = np.empty(1 << 16)
    kernels.widen(ALL_16_BITS.view(np.float16), wide)
    np.testing.assert_array_equal(wide, ALL_16_BITS.view(np.float16).astype(np.float64))
    assert (np.signbit(wide) == (ALL_16_BITS >= 0x8000))[~np.isnan(wide)].all()


@pytest.mark.parametrize("size", [0, 1, 511, 513, 1031])
def test_float32_widens_exactly(size):
    stored = np.random.default_rng(1).integers(0, 1 << 32, size, dtype=np.uint32).view(np.float32)
    wide = np.empty(size)
    kernels.widen(stored, wide)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(wide, stored.astype(np.float64))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
def test_what_was_read_is_taken_wherever_it_begins_and_though_it_may_not_be_written(dtype):
    data = bytes(3) + np.arange(600, dtype=dtype).tobytes()
    wide = np.empty(600)
    stored = np.frombuffer(data, dtype, offset=3)
    kernels.widen(stored, wide)
    expected = bfloat16_to_float32(stored) if dtype == np.uint16 else stored
    np.testing.assert_array_equal(wide, expected.astype(np.float64))


@pytest.mark.parametrize("liti_rate", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("slerp_weights", [[1.0], [0.7, 0.71], [0.5, 0.5], [0.0, 1.0], [0.6, 0.6, 0.5]])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1031])
def test_the_combination_has_the_bits_of_numpy(size, slerp_weights, liti_rate):
    block = weights(len(slerp_weights) + 1, size)
    block[:, : size // 2] *= -0.0  # signed zeros keep their sign
    factors = np.array(slerp_weights)
    merged, next_init = np.empty(size, np.float32), np.empty(size, np.float32)
    kernels.combine(block, factors, liti_rate=liti_rate, merged_N=merged, next_init_N=next_init)
    exact = put_back(block, factors)
    assert merged.tobytes() == round_once(exact).tobytes()
    assert next_init.tobytes() == round_once(liti(block[0], exact, liti_rate=liti_rate)).tobytes()


def test_ties_are_rounded_to_even_as_torch_rounds():
    torch = pytest.importorskip("torch")
    ties = np.arange(1, 1025, dtype=np.float64) * 2.0**-24 + 1.0
    merged, next_init = np.empty(1024, np.float32), np.empty(1024, np.float32)
    block = np.array([ties, ties])
    kernels.combine(block, np.array([1.0]), liti_rate=0.0, merged_N=merged, next_init_N=next_init)
    assert merged.tobytes() == torch.from_numpy(ties).to(torch.float32).numpy().tobytes() == next_init.tobytes()


def test_a_value_beyond_float32_is_refused():
    block = np.full((3, 600), 3e38)
    out = np.empty(600, np.float32), np.empty(600, np.float32)
    block[0, 599] = -3e38
    with pytest.raises(FloatingPointError):
        kernels.combine(block, np.array([0.7, 0.7]), liti_rate=0.5, merged_N=out[0], next_init_N=out[1])


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    """A file stands where the folder should be: that stops root too."""
    (tmp_path / "file").touch()
    program = "from warpctl.merging import kernels; import numpy as np; print(kernels.products(np.ones((2, 9)))[0, 0])"
    folder = str(tmp_path / "file" / "cache")
    environment = {**os.environ, "NUMBA_CACHE_DIR": folder, "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "9.0\n"), done.stderr
