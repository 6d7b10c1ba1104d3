"""bfloat16 conversion is bit-exact: a table by hand, all 65536 values, and torch's own rounding."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
import torch

from warpctl.storage.bfloat16 import bfloat16_to_float32, float32_to_bfloat16

TABLE = [
    # float32 bits, bfloat16 bits, what it is
    (0x00000000, 0x0000, "zero"),
    (0x80000000, 0x8000, "minus zero"),
    (0x3F800000, 0x3F80, "one"),
    (0x3F807FFF, 0x3F80, "just below a tie"),
    (0x3F808000, 0x3F80, "a tie with an even result below"),
    (0x3F808001, 0x3F81, "just above a tie"),
    (0x3F818000, 0x3F82, "a tie with an even result above"),
    (0xBF818000, 0xBF82, "the same, negative"),
    (0x3FFFFFFF, 0x4000, "a carry into the exponent"),
    (0x7F7F7FFF, 0x7F7F, "the largest number that stays finite"),
    (0x7F7F8000, 0x7F80, "a tie at the largest number goes to Inf"),
    (0xFF7FFFFF, 0xFF80, "the largest float32, negative"),
    (0x7F800000, 0x7F80, "Inf"),
    (0xFF800000, 0xFF80, "minus Inf"),
    (0x00000001, 0x0000, "the smallest subnormal"),
    (0x00008000, 0x0000, "a tie between zero and the smallest bfloat16 subnormal"),
    (0x00008001, 0x0001, "just above it"),
    (0x00018000, 0x0002, "a tie between subnormals"),
    (0x007FFFFF, 0x0080, "the largest subnormal becomes normal"),
    (0x7FC00000, 0x7FC0, "a quiet NaN"),
    (0xFFC00001, 0xFFC0, "a negative NaN with payload"),
    (0x7F800001, 0x7FC0, "a signalling NaN whose payload is cut off stays a NaN"),
    (0x7FFFFFFF, 0x7FFF, "all payload bits set: no carry into the sign"),
]


@pytest.mark.parametrize(("wide", "narrow", "what"), TABLE, ids=[row[2] for row in TABLE])
def test_rounding_follows_the_table(wide, narrow, what):
    values = np.array([wide], np.uint32).view(np.float32)
    assert hex(float32_to_bfloat16(values)[0]) == hex(narrow), what


def test_every_bfloat16_widens_exactly_and_rounds_back_to_itself():
    bits = np.arange(2**16, dtype=np.uint16)
    wide = bfloat16_to_float32(bits)
    expected = np.frombuffer(b"".join(struct.pack("<HH", 0, value) for value in range(2**16)), np.float32)
    assert wide.tobytes() == expected.tobytes()
    back = float32_to_bfloat16(wide)
    is_nan = np.isnan(wide)
    np.testing.assert_array_equal(back[~is_nan], bits[~is_nan])
    assert np.isnan(bfloat16_to_float32(back[is_nan])).all()


def test_rounding_is_torchs_for_every_exponent_and_every_kind_of_remainder():
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    tails = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x17FFF, 0x18000, 0x18001, 0x7FFFFF], np.uint32)
    near_ties = (np.arange(512, dtype=np.uint32)[:, None] << 23 | tails).ravel()
    bits = np.concatenate([near_ties, generator.integers(0, 2**32, 1_000_000, dtype=np.uint32)])
    values = bits.view(np.float32)
    ours = float32_to_bfloat16(values)
    theirs = torch.from_numpy(values.copy()).to(torch.bfloat16).view(torch.uint16).numpy()
    is_nan = np.isnan(values)
    np.testing.assert_array_equal(ours[~is_nan], theirs[~is_nan])
    assert is_nan.sum() > 1000
    assert np.isnan(bfloat16_to_float32(ours[is_nan])).all()
    assert np.isnan(bfloat16_to_float32(theirs[is_nan])).all()


def test_shapes_are_kept_and_inputs_left_alone():
    values = np.array([[1.0, math.pi], [-2.0, 1e30]], np.float32)
    before = values.copy()
    assert float32_to_bfloat16(values).shape == (2, 2)
    assert float32_to_bfloat16(values.T).tolist() == float32_to_bfloat16(values).T.tolist()
    assert bfloat16_to_float32(np.array(0x3F80, np.uint16)).shape == ()
    np.testing.assert_array_equal(values, before)
