"""Merged policy and next init of a stretch of elements, each rounded once: liti.py to the bit."""

# ruff: noqa: PLR0917  # numba's signatures know positions only

from __future__ import annotations

from typing import Any, Final

import numpy as np

from warpctl.merging.kernels import FLOAT16
from warpctl.merging.loops.memory import (
    PIECE,
    STRIDE,
    bits_of_float32,
    bits_of_float64,
    float64_at,
    float64_of,
    int64_at,
    loop,
    place_of,
    put_float32,
    put_float64,
    put_uint16,
    uint64_at,
    value_at,
    widen,
    without_halves,
)

_MAGNITUDE: Final = np.uint32(0x7FFFFFFF)
_INFINITY: Final = np.uint32(0x7F800000)
_SIXTEEN: Final = np.uint32(16)
_SIGN: Final = np.uint64(1 << 63)
_EXPONENT: Final = np.uint64(0x7FF << 52)
_SMALLEST: Final = 2.0**-126
_TO_8_BITS: Final = 1.5 * 2.0**45
"""Times a number's power of two: added and subtracted again, it leaves 8 of a float64's 53 bits, rounded to nearest even."""


def combine(
    kinds_K: Any,
    addresses_K: Any,
    num_inputs: int,
    start: int,
    stop: int,
    factors_K: Any,
    liti_rate: float,
    scratch: Any,
    results: Any,
    is_finite: Any,
) -> None:
    """Arrays are given by their addresses. Scratch: five pieces. Results: merged as float32 and as bfloat16, next init as both.

    An address of 0 is not wanted. `is_finite`, a float64, is set to 1 or 0. Terms with factor 0 are left out, as in liti.py.
    """
    is_usual = num_inputs == 3 and 0.0 != liti_rate != 1.0
    for row in range(num_inputs):
        is_usual &= float64_at(factors_K, row) != 0.0 and int64_at(kinds_K, row) == int64_at(kinds_K, 0) != FLOAT16
    wants_merged = uint64_at(results, 0) != 0 or uint64_at(results, 1) != 0
    wants_next_init = uint64_at(results, 2) != 0 or uint64_at(results, 3) != 0
    merged, interpolated = scratch, scratch + STRIDE
    largest = np.uint32(0)
    for element in range(start, stop, PIECE):
        size = min(PIECE, stop - element)
        next_init = interpolated
        if is_usual:
            kind = int64_at(kinds_K, 0)
            init = place_of(kind, uint64_at(addresses_K, 0), element)
            one = place_of(kind, uint64_at(addresses_K, 1), element)
            two = place_of(kind, uint64_at(addresses_K, 2), element)
            _combine_two(
                kind, init, one, two, factors_K, liti_rate, size, merged, next_init, wants_merged, wants_next_init
            )
        else:
            _merge(kinds_K, addresses_K, num_inputs, element, size, factors_K, scratch + STRIDE + STRIDE, merged)
            if wants_next_init:
                next_init = merged if liti_rate == 1.0 else interpolated
                kind = int64_at(kinds_K, 0)
                init = place_of(kind, uint64_at(addresses_K, 0), element)
                kind, init = without_halves(kind, init, size, scratch + STRIDE + STRIDE)
                if liti_rate == 0.0:
                    widen(kind, init, size, next_init)
                elif liti_rate != 1.0:
                    _interpolate(1.0 - liti_rate, kind, init, liti_rate, merged, size, next_init)
        offset = np.uint64(element - start)
        if wants_merged:
            largest = max(largest, _round(merged, size, offset, uint64_at(results, 0), uint64_at(results, 1)))
        if wants_next_init:
            largest = max(largest, _round(next_init, size, offset, uint64_at(results, 2), uint64_at(results, 3)))
    put_float64(is_finite, 0, 1.0 if largest < _INFINITY else 0.0)


@loop
def _combine_two(
    kind: int,
    init: Any,
    one: Any,
    two: Any,
    factors_K: Any,
    liti_rate: float,
    size: int,
    merged: Any,
    next_init: Any,
    wants_merged: bool,
    wants_next_init: bool,
) -> None:
    """The usual case, two policies stored as their init, in one pass over the inputs."""
    of_init, of_one, of_two = float64_at(factors_K, 0), float64_at(factors_K, 1), float64_at(factors_K, 2)
    stays = 1.0 - liti_rate
    if not wants_next_init:
        for i in range(size):
            exact = of_init * value_at(kind, init, i) + of_one * value_at(kind, one, i)
            put_float64(merged, i, exact + of_two * value_at(kind, two, i))
    elif wants_merged:
        for i in range(size):
            start = value_at(kind, init, i)
            exact = (of_init * start + of_one * value_at(kind, one, i)) + of_two * value_at(kind, two, i)
            put_float64(merged, i, exact)
            put_float64(next_init, i, stays * start + liti_rate * exact)
    else:
        for i in range(size):
            start = value_at(kind, init, i)
            exact = (of_init * start + of_one * value_at(kind, one, i)) + of_two * value_at(kind, two, i)
            put_float64(next_init, i, stays * start + liti_rate * exact)


@loop
def _merge(
    kinds_K: Any, addresses_K: Any, num_inputs: int, element: int, size: int, factors_K: Any, narrow: Any, merged: Any
) -> None:
    """Any number of inputs, stored in any way: one pass for each. At least one factor is not zero."""
    is_first = True
    for row in range(num_inputs):
        factor = float64_at(factors_K, row)
        if factor != 0.0:
            kind = int64_at(kinds_K, row)
            place = place_of(kind, uint64_at(addresses_K, row), element)
            kind, place = without_halves(kind, place, size, narrow)
            if is_first:
                _scaled(factor, kind, place, size, merged)
            else:
                _add(factor, kind, place, size, merged)
            is_first = False


@loop
def _scaled(factor: float, kind: int, address: Any, size: int, result: Any) -> None:
    for i in range(size):
        put_float64(result, i, factor * value_at(kind, address, i))


@loop
def _add(factor: float, kind: int, address: Any, size: int, result: Any) -> None:
    for i in range(size):
        put_float64(result, i, float64_at(result, i) + factor * value_at(kind, address, i))


@loop
def _interpolate(stays: float, kind: int, init: Any, liti_rate: float, merged: Any, size: int, result: Any) -> None:
    for i in range(size):
        put_float64(result, i, stays * value_at(kind, init, i) + liti_rate * float64_at(merged, i))


@loop
def _round(exact: Any, size: int, offset: Any, float32: Any, bfloat16: Any) -> Any:
    """The largest magnitude of what is wanted, in bits; an address of 0 is not wanted."""
    largest = np.uint32(0)
    if float32 != 0:
        largest = _round_to_float32(exact, size, float32 + offset * np.uint64(4))
    if bfloat16 != 0:
        largest = max(largest, _round_to_bfloat16(exact, size, bfloat16 + offset * np.uint64(2)))
    return largest


@loop
def _round_to_float32(exact: Any, size: int, rounded: Any) -> Any:
    """The largest magnitude, in bits: a maximum of integers may be taken in any order, hence in vectors."""
    largest = np.uint32(0)
    for i in range(size):
        near = np.float32(float64_at(exact, i))
        put_float32(rounded, i, near)
        largest = max(largest, np.uint32(bits_of_float32(near) & _MAGNITUDE))
    return largest


@loop
def _round_to_bfloat16(exact: Any, size: int, rounded: Any) -> Any:
    """From float64 at once. A bfloat16 is a whole number of units: 2**-7 of the power of two below it, or of 2**-126 if more.

    Adding 1.5 * 2**52 units rounds to units, as float64 has no bits below; that sum is in [2**52, 2**53) units for both signs.
    The sign is put back for what becomes zero. The result fits a float32 exactly, or is its Inf.
    """
    largest = np.uint32(0)
    for i in range(size):
        value = float64_at(exact, i)
        bits = bits_of_float64(value)
        power = max(float64_of(np.uint64(bits & _EXPONENT)), _SMALLEST)
        shift = power * _TO_8_BITS
        units = bits_of_float64((value + shift) - shift)
        signed = float64_of(np.uint64(units | np.uint64(bits & _SIGN)))
        near = bits_of_float32(np.float32(signed))
        put_uint16(rounded, i, np.uint16(near >> _SIXTEEN))
        largest = max(largest, np.uint32(near & _MAGNITUDE))
    return largest
