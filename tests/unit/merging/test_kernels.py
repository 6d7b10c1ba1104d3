"""Compiled kernels give the bits of numpy, whatever the types, the length, the number of members and the values."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from warpctl.merging import kernels
from warpctl.merging.coefficients import factors_of_policies
from warpctl.merging.kernels import Inputs, Rounded
from warpctl.merging.liti import liti, put_back, round_once, round_once_to_bfloat16
from warpctl.merging.task_vector import BLOCK_ELEMENTS, blocks, inner_products
from warpctl.storage.bfloat16 import bfloat16_to_float32, float32_to_bfloat16

LENGTHS = [*range(1, 10), 63, 64, 65, 127, 128, 129, 511, 512, 513, 1031, 4097]
LONG = [BLOCK_ELEMENTS - 1, BLOCK_ELEMENTS, BLOCK_ELEMENTS + 1, 2 * BLOCK_ELEMENTS + 513]
ALL_16_BITS = np.arange(1 << 16, dtype=np.uint16)
F32, F16, BF16 = "F32", "F16", "BF16"
HUGE = float(np.finfo(np.float32).max)


def stored(values, dtype):
    if dtype == BF16:
        return float32_to_bfloat16(values.astype(np.float32))
    return values.astype({F32: np.float32, F16: np.float16}[dtype])


def wide(stored_N):
    with np.errstate(invalid="ignore"):  # numpy says so of a signalling NaN
        return (bfloat16_to_float32(stored_N) if stored_N.dtype == np.uint16 else stored_N).astype(np.float64)


def weights(dtypes, size, seed=0):
    rng = np.random.default_rng(seed)
    init = rng.standard_normal(size)
    rows = [init, *(init + 0.01 * rng.standard_normal((len(dtypes) - 1, size)))]
    return [stored(row, dtype) for row, dtype in zip(rows, dtypes, strict=True)]


def found_products(stored_K):
    inputs = Inputs(stored_K)
    found_BKK = np.full((len(list(blocks(inputs.size))), len(stored_K), len(stored_K)), 7.0)
    kernels.inner_products(inputs, slice(0, inputs.size), found_BKK)
    return found_BKK


def found_combination(
    stored_K, slerp_weights, liti_rate, wanted=("merged F32", "merged BF16", "next F32", "next BF16")
):
    inputs = Inputs(stored_K)
    arrays = [
        np.zeros(inputs.size if f"{what} {dtype}" in wanted else 0, kind)
        for what in ("merged", "next")
        for dtype, kind in ((F32, np.float32), (BF16, np.uint16))
    ]
    results = {"merged": Rounded(*arrays[:2]), "next_init": Rounded(*arrays[2:])}
    factors_K = factors_of_policies(slerp_weights)
    kernels.combine(inputs, factors_K, slice(0, inputs.size), liti_rate=liti_rate, **results)
    return arrays


def expected_combination(stored_K, slerp_weights, liti_rate):
    wide_KN = np.array([wide(stored_N) for stored_N in stored_K])
    exact = put_back(wide_KN, np.array(slerp_weights))
    both = exact, liti(wide_KN[0], exact, liti_rate=liti_rate)
    return [rounded(values) for values in both for rounded in (round_once, round_once_to_bfloat16)]


def bits(arrays):
    return [(array.dtype, array.tobytes()) for array in arrays]


@pytest.mark.parametrize("dtypes", [*product([F32, F16, BF16], repeat=3)], ids="-".join)
def test_inner_products_have_the_bits_of_numpy_for_every_mix_of_types(dtypes):
    stored_K = weights(dtypes, 1031)
    expected = inner_products(np.array([wide(stored_N) for stored_N in stored_K]))
    assert found_products(stored_K)[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize("size", LENGTHS + LONG)
@pytest.mark.parametrize("num_members", [1, 2, 3, 4, 5, 8])
def test_inner_products_have_the_bits_of_numpy_for_every_length_and_number_of_members(num_members, size):
    stored_K = weights([BF16] * (num_members + 1), size)
    wide_KN = np.array([wide(stored_N) for stored_N in stored_K])
    expected = [inner_products(wide_KN[:, block]) for block in blocks(size)]
    assert [part.tobytes() for part in found_products(stored_K)] == [part.tobytes() for part in expected]


def test_inner_products_of_nothing_are_zero():
    assert found_products(weights([F32, BF16], 0)).tolist() == [[[0.0, 0.0], [0.0, 0.0]]]


@pytest.mark.parametrize("first_block", [1, 2])
def test_blocks_may_be_computed_apart(first_block):
    inputs = Inputs(weights([F32, BF16, F16], 2 * BLOCK_ELEMENTS + 513))
    every, some = np.empty((3, 3, 3)), np.empty((3 - first_block, 3, 3))
    kernels.inner_products(inputs, slice(0, inputs.size), every)
    kernels.inner_products(inputs, slice(first_block * BLOCK_ELEMENTS, inputs.size), some)
    assert some.tobytes() == every[first_block:].tobytes()


@pytest.mark.parametrize("dtype", [F32, F16, BF16])
@pytest.mark.parametrize("num_members", [1, 2, 5])
def test_inner_products_are_right_to_a_few_units_of_float64(num_members, dtype):
    stored_K = weights([dtype] * (num_members + 1), 20011)
    block = [wide(stored_N) for stored_N in stored_K]
    rows = [block[0], *(row - block[0] for row in block[1:])]
    exact = [[math.fsum(a * b) for b in rows] for a in rows]
    scale = [[math.fsum(abs(a * b)) for b in rows] for a in rows]
    assert (np.abs(found_products(stored_K)[0] - exact) <= 1e-14 * np.array(scale)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 7, 512, 1023, 1030])
@pytest.mark.parametrize("row", [0, 2])
@pytest.mark.parametrize("dtype", [F32, F16, BF16])
def test_nan_and_inf_are_seen_in_the_inner_products(bad, place, row, dtype):
    stored_K = weights([dtype] * 3, 1031)
    stored_K[row][place] = stored(np.array([bad]), dtype)[0]
    found, expected = found_products(stored_K)[0], inner_products(np.array([wide(each) for each in stored_K]))
    assert not np.isfinite(found).all()
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))


@pytest.mark.parametrize("bits_of_all", [ALL_16_BITS, ALL_16_BITS.view(np.float16)], ids=[BF16, F16])
def test_every_value_of_16_bits_is_taken_exactly(bits_of_all):
    """One member with weight 1 comes out as it went in."""
    finite = bits_of_all[np.isfinite(wide(bits_of_all))]
    merged, _, next_init, _ = found_combination([finite[::-1].copy(), finite], [1.0], 1.0, ["merged F32", "next F32"])
    assert merged.tobytes() == next_init.tobytes() == wide(finite).astype(np.float32).tobytes()


@pytest.mark.parametrize("dtype", [F32, F16, BF16])
@pytest.mark.parametrize("offset", [1, 2, 3, 5])
def test_what_was_read_is_taken_wherever_it_begins_and_though_it_may_not_be_written(dtype, offset):
    aligned = weights([dtype] * 3, 600)
    moved = [np.frombuffer(bytes(offset) + each.tobytes(), each.dtype, offset=offset) for each in aligned]
    assert found_products(moved).tobytes() == found_products(aligned).tobytes()
    assert bits(found_combination(moved, [0.7, 0.7], 0.3)) == bits(found_combination(aligned, [0.7, 0.7], 0.3))


@pytest.mark.parametrize("liti_rate", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "slerp_weights", [[1.0], [0.7, 0.71], [0.5, 0.5], [0.0, 1.0], [0.6, 0.0, 0.5], [0.0, 0.0], [0.4] * 5]
)
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1031])
def test_the_combination_has_the_bits_of_numpy(size, slerp_weights, liti_rate):
    stored_K = weights([BF16] * (len(slerp_weights) + 1), size)
    for stored_N in stored_K:
        stored_N[: size // 2] = 0x8000  # -0.0 keeps its sign
    assert bits(found_combination(stored_K, slerp_weights, liti_rate)) == bits(
        expected_combination(stored_K, slerp_weights, liti_rate)
    )


@pytest.mark.parametrize("dtypes", [*product([F32, F16, BF16], repeat=3)], ids="-".join)
def test_the_combination_has_the_bits_of_numpy_for_every_mix_of_types(dtypes):
    stored_K = weights(dtypes, 1031)
    assert bits(found_combination(stored_K, [0.7, 0.71], 0.3)) == bits(expected_combination(stored_K, [0.7, 0.71], 0.3))


@pytest.mark.parametrize("size", LONG)
def test_the_combination_may_be_computed_in_parts(size):
    stored_K = weights([F32, BF16, F16], size)
    place = slice(BLOCK_ELEMENTS // 2, size)
    part = Rounded(np.empty(size - place.start, np.float32), np.empty(0, np.uint16))
    nothing = Rounded(np.empty(0, np.float32), np.empty(0, np.uint16))
    kernels.combine(
        Inputs(stored_K), factors_of_policies([0.7, 0.7]), place, liti_rate=0.3, merged=nothing, next_init=part
    )
    assert part.float32_N.tobytes() == found_combination(stored_K, [0.7, 0.7], 0.3)[2][place].tobytes()


@pytest.mark.parametrize("number", range(1, 16))
def test_only_what_is_wanted_is_made_and_is_what_it_would_be_beside_the_others(number):
    every = ["merged F32", "merged BF16", "next F32", "next BF16"]
    stored_K = weights([BF16] * 3, 1031)
    all_of_them = found_combination(stored_K, [0.7, 0.7], 0.3)
    some = found_combination(stored_K, [0.7, 0.7], 0.3, [name for n, name in enumerate(every) if number >> n & 1])
    for n, array in enumerate(some):
        assert array.tobytes() == (all_of_them[n].tobytes() if number >> n & 1 else b"")


def near_ties():
    """Halfway between neighbouring bfloat16 and float32 numbers of all magnitudes, and by the least or a little beside it."""
    rng = np.random.default_rng(0)
    small = np.concatenate([rng.integers(0, 0x7F7F, 4000), range(300), range(0x7F00, 0x7F7F)]).astype(np.uint16)
    ties = (wide(small) + wide(small + np.uint16(1))) / 2
    float32_ties = ties + np.array([[1.0], [3.0]]) * np.spacing(ties.astype(np.float32)) / 2
    magnitudes = np.concatenate([ties, *float32_ties, [2.0**-150, 2.0**-200, 5e-324]])
    beside = [magnitudes, *(magnitudes * (1 + sign * 2.0**-n) for sign in (1, -1) for n in (52, 40, 30, 25, 24, 20))]
    return np.concatenate([sign * values for values in beside for sign in (1.0, -1.0)])


def rounded_by_kernels(exact):
    """float64 values in both types, and whether they fit: each as its power of two times a sum of three float32 numbers."""
    found = Rounded(np.zeros(exact.size, np.float32), np.zeros(exact.size, np.uint16))
    fits = [True, True]
    fractions, exponents = np.frexp(exact)
    for exponent in np.unique(exponents):
        place = np.flatnonzero(exponents == exponent)
        parts, rest = [], fractions[place]
        for _ in range(3):
            parts.append(rest.astype(np.float32))
            rest = np.subtract(rest, parts[-1], where=np.isfinite(rest), out=np.zeros_like(rest))
        stored_K = [np.zeros(place.size, np.float32), *parts]
        for number, (name, array) in enumerate([("merged F32", found.float32_N), ("merged BF16", found.bfloat16_N)]):
            try:
                array[place] = found_combination(stored_K, [2.0 ** int(exponent)] * 3, 1.0, [name])[number]
            except FloatingPointError:
                fits[number] = False
    return found, fits


def test_float64_is_rounded_once_to_bfloat16_and_to_float32():
    exact = near_ties()
    found, fits = rounded_by_kernels(exact)
    assert fits == [True, True]
    assert found.float32_N.tobytes() == exact.astype(np.float32).tobytes()
    assert found.bfloat16_N.tobytes() == round_once_to_bfloat16(exact).tobytes()
    assert (found.bfloat16_N != float32_to_bfloat16(exact.astype(np.float32))).any()  # two roundings would differ


def test_what_is_beyond_a_type_or_not_finite_is_not_said_to_fit():
    largest = float(wide(np.array([0x7F7F], np.uint16))[0])
    tie = largest + 2.0**119  # is rounded to the even neighbour, Inf
    for value, fits in [
        (largest, [True, True]),
        (np.nextafter(tie, 0), [True, True]),
        (tie, [True, False]),
        (HUGE, [True, False]),
        (np.nextafter(HUGE + 2.0**103, 0), [True, False]),
        (HUGE + 2.0**103, [False, False]),
        (1e300, [False, False]),
        (np.inf, [False, False]),
        (np.nan, [False, False]),
        (np.uint64(0xFFFFFFFFFFFFFFFF).view(np.float64), [False, False]),
    ]:
        for sign in (1.0, -1.0):
            exact = np.zeros(600)
            exact[599] = sign * value
            assert rounded_by_kernels(exact)[1] == fits, value


def test_ties_are_rounded_to_even_as_torch_rounds():
    torch = pytest.importorskip("torch")
    ties = np.arange(1, 1025, dtype=np.float64) * 2.0**-24 + 1.0
    assert rounded_by_kernels(ties)[0].float32_N.tobytes() == torch.from_numpy(ties).to(torch.float32).numpy().tobytes()
    ties = (np.arange(1, 1025) * 2.0**-8 + 1.0).astype(np.float32)  # float32 numbers: torch rounds them once
    expected = torch.from_numpy(ties).to(torch.bfloat16).view(torch.uint16).numpy()
    assert rounded_by_kernels(ties.astype(np.float64))[0].bfloat16_N.tobytes() == expected.tobytes()


@pytest.mark.parametrize("wanted", ["merged F32", "merged BF16", "next F32", "next BF16"])
def test_a_value_beyond_its_type_is_refused(wanted):
    stored_K = [np.full(600, 3e38, np.float32) for _ in range(3)]
    stored_K[0][599] = -3e38
    with pytest.raises(FloatingPointError):
        found_combination(stored_K, [0.7, 0.7], 0.9, [wanted])


def test_a_value_beyond_bfloat16_alone_is_refused_only_where_bfloat16_is_wanted():
    stored_K = [np.full(1, HUGE, np.float32)] * 2
    assert found_combination(stored_K, [1.0], 0.5, ["merged F32"])[0].tolist() == [HUGE]
    with pytest.raises(FloatingPointError):
        found_combination(stored_K, [1.0], 0.5, ["merged BF16"])


def test_only_what_is_wanted_must_fit():
    """Merged is beyond float32, but the next init is nearer to the init."""
    stored_K = [np.full(9, value, np.float32) for value in (-3e38, 3e38, 3e38)]
    assert np.isfinite(found_combination(stored_K, [0.8, 0.8], 0.1, ["next F32"])[2]).all()


@pytest.mark.parametrize(
    "stored_K",
    [
        [np.zeros(4), np.zeros(4)],
        [np.zeros(4, np.float32), np.zeros(5, np.float32)],
        [np.zeros(4, np.float32), np.zeros(8, np.float32)[::2]],
        [np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)],
        [np.zeros(4, ">f4"), np.zeros(4, ">f4")],
    ],
    ids=["float64", "length", "strided", "shape", "byte order"],
)
def test_what_kernels_cannot_read_is_refused(stored_K):
    with pytest.raises(ValueError, match="beside"):
        Inputs(stored_K)


@pytest.mark.parametrize("dtypes", [(BF16, BF16), (F32, BF16), (F32, F32, F32), (BF16, F16, F32)], ids="-".join)
@pytest.mark.parametrize("first", [0.0, 0.75, -1.5])
def test_factors_need_not_be_one_together(dtypes, first):
    stored_K = weights(dtypes, 1031)
    wide_KN = np.array([wide(stored_N) for stored_N in stored_K])
    factors_K = np.array([first, 0.5, 0.7])[: len(dtypes)]
    exact = sum(
        (factor * row for factor, row in zip(factors_K[1:], wide_KN[1:], strict=True)), factors_K[0] * wide_KN[0]
    )
    merged = Rounded(np.empty(1031, np.float32), np.empty(1031, np.uint16))
    nothing = Rounded(np.empty(0, np.float32), np.empty(0, np.uint16))
    kernels.combine(Inputs(stored_K), factors_K, slice(0, 1031), liti_rate=1.0, merged=merged, next_init=nothing)
    assert bits(merged) == bits([round_once(exact), round_once_to_bfloat16(exact)])


@pytest.mark.parametrize("factors", [[0.5, 0.5], [0.0, 0.0, 0.0], [[1.0, 0.0, 0.0]]])
def test_factors_that_do_not_fit_are_refused(factors):
    nothing = Rounded(np.empty(0, np.float32), np.empty(0, np.uint16))
    inputs = Inputs(weights([F32] * 3, 10))
    with pytest.raises(ValueError, match=r"factors .* for 3 inputs"):
        kernels.combine(inputs, np.array(factors), slice(0, 10), liti_rate=1.0, merged=nothing, next_init=nothing)
