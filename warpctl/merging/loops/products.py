"""Inner products of init and task vectors, block by block: task_vector.inner_products to the bit.

A block is worked on in pieces. Their float64 and the lanes of each pair of vectors stay in the first cache; of two policies that
are stored as their init, whole pieces never leave the registers.
"""

# ruff: noqa: PLR0917  # numba's signatures know positions only

from __future__ import annotations

from typing import Any

import numpy as np

from warpctl.merging.kernels import FLOAT16
from warpctl.merging.loops.memory import (
    PIECE,
    STRIDE,
    float64_at,
    int64_at,
    loop,
    place_of,
    put_float64,
    uint64_at,
    value_at,
    widen,
    without_halves,
)
from warpctl.merging.task_vector import BLOCK_ELEMENTS, LANES


def inner_products(
    kinds_K: Any,
    addresses_K: Any,
    num_vectors: int,
    start: int,
    stop: int,
    scratch: Any,
    products_BKK: Any,
    blocks: int,
) -> None:
    """Arrays are given by their addresses. Scratch: a narrow piece, K wide ones, then the lanes of each pair."""
    narrow, wide, lanes = scratch, scratch + STRIDE, scratch + np.uint64(num_vectors + 1) * STRIDE
    kind = int64_at(kinds_K, 0)
    is_usual = num_vectors == 3 and kind != FLOAT16
    for row in range(num_vectors):
        is_usual &= int64_at(kinds_K, row) == kind
    for block in range(blocks):
        for pair in range(num_vectors * (num_vectors + 1) // 2):
            _clear(0, LANES, lanes + np.uint64(pair) * STRIDE)
        first = start + block * BLOCK_ELEMENTS
        last = min(first + BLOCK_ELEMENTS, stop)
        for element in range(first, last, PIECE):
            size = min(PIECE, last - element)
            if is_usual and size == PIECE:
                init = place_of(kind, uint64_at(addresses_K, 0), element)
                one = place_of(kind, uint64_at(addresses_K, 1), element)
                two = place_of(kind, uint64_at(addresses_K, 2), element)
                _add_two_policies(kind, init, one, two, lanes)
            else:
                _widen_all(kinds_K, addresses_K, num_vectors, element, size, narrow, wide)
                for row in range(num_vectors):
                    _add_row(wide, lanes, row)
        pair = 0
        for row in range(num_vectors):
            for column in range(row + 1):
                total = _halved(lanes + np.uint64(pair) * STRIDE)
                put_float64(products_BKK, (block * num_vectors + row) * num_vectors + column, total)
                put_float64(products_BKK, (block * num_vectors + column) * num_vectors + row, total)
                pair += 1


@loop
def _widen_all(
    kinds_K: Any, addresses_K: Any, num_vectors: int, element: int, size: int, narrow: Any, wide: Any
) -> None:
    """A piece of the init and of each task vector, filled up with zeros."""
    for row in range(num_vectors):
        kind = int64_at(kinds_K, row)
        place = place_of(kind, uint64_at(addresses_K, row), element)
        kind, place = without_halves(kind, place, size, narrow)
        vector = wide + np.uint64(row) * STRIDE
        if row == 0:
            widen(kind, place, size, vector)
        else:
            _difference(kind, place, size, wide, vector)
        _clear(size, PIECE, vector)


@loop
def _add_row(wide: Any, lanes: Any, row: int) -> None:
    """Products of one vector with those before it, and itself."""
    first = row * (row + 1) // 2
    for column in range(row + 1):
        one, two = wide + np.uint64(row) * STRIDE, wide + np.uint64(column) * STRIDE
        _add_pair(one, two, lanes + np.uint64(first + column) * STRIDE)


@loop
def _clear(start: int, stop: int, result: Any) -> None:
    for i in range(start, stop):
        put_float64(result, i, 0.0)


@loop
def _difference(kind: int, address: Any, size: int, subtracted: Any, result: Any) -> None:
    for i in range(size):
        put_float64(result, i, value_at(kind, address, i) - float64_at(subtracted, i))


@loop
def _product(a: Any, b: Any, index: int) -> Any:
    return float64_at(a, index) * float64_at(b, index)


@loop
def _add_pair(a: Any, b: Any, lanes: Any) -> None:
    """The products of a whole piece, row after row; written out so that a lane stays in its register for all rows."""
    for i in range(LANES):
        lane = float64_at(lanes, i)
        lane += _product(a, b, i)
        lane += _product(a, b, i + LANES)
        lane += _product(a, b, i + 2 * LANES)
        lane += _product(a, b, i + 3 * LANES)
        lane += _product(a, b, i + 4 * LANES)
        lane += _product(a, b, i + 5 * LANES)
        lane += _product(a, b, i + 6 * LANES)
        lane += _product(a, b, i + 7 * LANES)
        put_float64(lanes, i, lane)


@loop
def _six_products(
    kind: int, init: Any, one: Any, two: Any, i: int, aa: float, ba: float, bb: float, ca: float, cb: float, cc: float
) -> Any:
    a = value_at(kind, init, i)
    b, c = value_at(kind, one, i) - a, value_at(kind, two, i) - a
    return aa + a * a, ba + b * a, bb + b * b, ca + c * a, cb + c * b, cc + c * c


@loop
def _add_two_policies(kind: int, init: Any, one: Any, two: Any, lanes: Any) -> None:
    """The usual case, two policies stored as their init: all six pairs of a whole piece from one pass over it."""
    second, third = lanes + STRIDE, lanes + np.uint64(2) * STRIDE
    fourth, fifth, sixth = lanes + np.uint64(3) * STRIDE, lanes + np.uint64(4) * STRIDE, lanes + np.uint64(5) * STRIDE
    for i in range(LANES):
        aa, ba, bb = float64_at(lanes, i), float64_at(second, i), float64_at(third, i)
        ca, cb, cc = float64_at(fourth, i), float64_at(fifth, i), float64_at(sixth, i)
        aa, ba, bb, ca, cb, cc = _six_products(kind, init, one, two, i, aa, ba, bb, ca, cb, cc)
        aa, ba, bb, ca, cb, cc = _six_products(kind, init, one, two, i + LANES, aa, ba, bb, ca, cb, cc)
        aa, ba, bb, ca, cb, cc = _six_products(kind, init, one, two, i + 2 * LANES, aa, ba, bb, ca, cb, cc)
        aa, ba, bb, ca, cb, cc = _six_products(kind, init, one, two, i + 3 * LANES, aa, ba, bb, ca, cb, cc)
        aa, ba, bb, ca, cb, cc = _six_products(kind, init, one, two, i + 4 * LANES, aa, ba, bb, ca, cb, cc)
        aa, ba, bb, ca, cb, cc = _six_products(kind, init, one, two, i + 5 * LANES, aa, ba, bb, ca, cb, cc)
        aa, ba, bb, ca, cb, cc = _six_products(kind, init, one, two, i + 6 * LANES, aa, ba, bb, ca, cb, cc)
        aa, ba, bb, ca, cb, cc = _six_products(kind, init, one, two, i + 7 * LANES, aa, ba, bb, ca, cb, cc)
        put_float64(lanes, i, aa)
        put_float64(second, i, ba)
        put_float64(third, i, bb)
        put_float64(fourth, i, ca)
        put_float64(fifth, i, cb)
        put_float64(sixth, i, cc)


@loop
def _halved(lanes: Any) -> Any:
    """Sum of the lanes, the upper half added to the lower until one is left."""
    half = LANES // 2
    while half:
        for i in range(half):
            put_float64(lanes, i, float64_at(lanes, i) + float64_at(lanes, i + half))
        half //= 2
    return float64_at(lanes, 0)
