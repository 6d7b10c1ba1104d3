"""Putting back and LITI: exact at the ends, one rounding in between."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from warpctl.merging.liti import liti, put_back, round_once, round_once_to_bfloat16
from warpctl.storage.bfloat16 import float32_to_bfloat16

float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
pair = hnp.arrays(np.float32, (2, 5), elements=float32)


@given(pair)
def test_one_member_gives_that_policy_bit_for_bit_even_far_from_the_init(weights):
    merged = round_once(put_back(weights.astype(np.float64), np.array([1.0])))
    assert merged.tobytes() == weights[1].tobytes()


@given(pair)
def test_liti_rate_0_gives_the_init_and_rate_1_the_merged_policy_bit_for_bit(weights):
    init, merged = weights.astype(np.float64)
    assert round_once(liti(init, merged, liti_rate=0.0)).tobytes() == weights[0].tobytes()
    assert round_once(liti(init, merged, liti_rate=1.0)).tobytes() == weights[1].tobytes()


def test_worked_numbers_of_putting_back_and_liti():
    weights = np.array([[1.0, 2.0], [3.0, 2.0], [1.0, 6.0]])
    merged = put_back(weights, np.array([0.5, 0.75]))
    np.testing.assert_allclose(merged, [1 + 0.5 * 2, 2 + 0.75 * 4], rtol=1e-15)
    np.testing.assert_allclose(liti(weights[0], merged, liti_rate=0.25), [1.25, 2.75], rtol=1e-15)


@given(
    hnp.arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32)),
    hnp.arrays(np.float64, 2, elements=st.floats(-2, 2)),
    st.floats(0, 2),
)
def test_the_affine_form_is_init_plus_weighted_task_vectors_then_liti(weights, slerp_weights, liti_rate):
    wide = weights.astype(np.longdouble)
    exact_merged = wide[0] + slerp_weights.astype(np.longdouble) @ (wide[1:] - wide[0])
    exact_next = wide[0] + np.longdouble(liti_rate) * (exact_merged - wide[0])
    merged = put_back(weights.astype(np.float64), slerp_weights)
    np.testing.assert_allclose(merged, exact_merged.astype(np.float64), rtol=0, atol=5e-13)
    found = liti(weights[0].astype(np.float64), merged, liti_rate=liti_rate)
    np.testing.assert_allclose(found, exact_next.astype(np.float64), rtol=0, atol=5e-13)


def test_inputs_are_left_as_they_were():
    weights = np.random.default_rng(0).standard_normal((3, 4))
    before = weights.copy()
    liti(weights[0], put_back(weights, np.array([0.6, 0.7])), liti_rate=0.3)
    np.testing.assert_array_equal(weights, before)


def test_rounding_is_to_nearest_even_and_refuses_to_make_inf():
    tie = 1 + 2.0**-24
    assert round_once(np.array([tie, np.nextafter(tie, 2), 1e-60])).tolist() == [1.0, 1 + 2.0**-23, 0.0]
    with pytest.raises(FloatingPointError):
        round_once(np.array([3.5e38]))


def exact_bfloat16(value):
    """Of all neighbours the nearest one in exact arithmetic, the even one of two."""
    below = int(abs(np.float32(value)).view(np.uint32)) >> 16
    near = [max(below + step, 0) for step in (-1, 0, 1)]
    magnitudes = [Fraction(float(np.array([bits << 16], np.uint32).view(np.float32)[0])) for bits in near]
    _, _, best = min((abs(m - abs(Fraction(value))), bits & 1, bits) for m, bits in zip(magnitudes, near, strict=True))
    return best | (0x8000 if np.signbit(value) else 0)


@given(st.floats(-3e38, 3e38))
def test_any_float64_is_rounded_to_the_nearest_bfloat16(value):
    assert round_once_to_bfloat16(np.array([value])).tolist() == [exact_bfloat16(value)]


@given(st.integers(0, 0x7F7E), st.sampled_from([1.0, -1.0]), st.integers(24, 52), st.sampled_from([-1, 0, 1]))
def test_a_tie_of_bfloat16_or_next_to_one_is_rounded_once(bits, sign, places, step):
    lower, upper = np.array([bits << 16, bits + 1 << 16], np.uint32).view(np.float32).astype(np.float64)
    value = sign * (lower + upper) / 2 * (1 + step * 2.0**-places)
    assert round_once_to_bfloat16(np.array([value])).tolist() == [exact_bfloat16(value)]


def test_two_roundings_would_differ():
    value = 1 + 2.0**-8 + 2.0**-40  # above the tie of bfloat16, but not in float32
    assert round_once_to_bfloat16(np.array([value, 1 + 2.0**-8])).tolist() == [0x3F81, 0x3F80]
    assert float32_to_bfloat16(round_once(np.array([value]))).tolist() == [0x3F80]


def test_rounding_to_bfloat16_refuses_to_make_inf():
    largest = (2 - 2.0**-7) * 2.0**127
    assert round_once_to_bfloat16(np.array([np.nextafter(largest + 2.0**119, 0)])).tolist() == [0x7F7F]
    with pytest.raises(FloatingPointError):
        round_once_to_bfloat16(np.array([largest + 2.0**119]))
