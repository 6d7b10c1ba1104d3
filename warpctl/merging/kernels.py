"""The merge's inner loops, compiled by numba: weights widened, inner products, combination with one rounding.

They give the bits that numpy gives (task_vector.py and liti.py, which the tests hold them to): sums are taken in the order of
numpy's pairwise summation, and nothing is contracted or reordered. They release the interpreter's lock.

Imported by the merge worker alone: numba takes some tenths of a second to import and is no business of the controller's.
Compiled code is kept where compiled_code.py says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from warpctl.merging import compiled_code

compiled_code.prepare()

import numba

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Stored = npt.NDArray[Any]

LEAF = 128
"""Elements that numpy's pairwise summation adds up in eight lanes; above it, it halves."""
_CHUNK = 512
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_TWO_TO_112 = np.float32(2.0**112)


def _widening(stored: Any) -> Any:
    """Of a kernel that widens: what is read from a store may not be written to."""
    return numba.void(numba.types.Array(stored, 1, "C", readonly=True), numba.float64[::1])


def _compiled(signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def compile_it(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(signature, nogil=True, cache=True)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # numba: no folder for its cache
            return numba.njit(signature, nogil=True)(function)  # type: ignore[no-any-return]

    return compile_it


@_compiled(_widening(numba.uint16))
def _widen_bfloat16(stored_N: Any, wide_N: Any) -> None:
    bits = np.empty(_CHUNK, np.uint32)
    values = bits.view(np.float32)
    for start in range(0, stored_N.size, _CHUNK):
        stored, wide = stored_N[start : start + _CHUNK], wide_N[start : start + _CHUNK]
        for i in range(stored.size):
            bits[i] = np.uint32(stored[i]) << np.uint32(16)
        for i in range(stored.size):
            wide[i] = values[i]


@_compiled(_widening(numba.uint16))
def _widen_float16(stored_N: Any, wide_N: Any) -> None:
    """A half's exponent and fraction, moved to where a float32 has its own, are that half times 2**-112, subnormals too."""
    bits = np.empty(_CHUNK, np.uint32)
    values = bits.view(np.float32)
    for start in range(0, stored_N.size, _CHUNK):
        stored, wide = stored_N[start : start + _CHUNK], wide_N[start : start + _CHUNK]
        for i in range(stored.size):
            half = np.uint32(stored[i])
            special = _INFINITY if (half & np.uint32(0x7C00)) == np.uint32(0x7C00) else np.uint32(0)
            sign = (half & np.uint32(0x8000)) << np.uint32(16)
            bits[i] = ((half & np.uint32(0x7FFF)) << np.uint32(13)) | sign | special
        for i in range(stored.size):
            wide[i] = values[i] * _TWO_TO_112


@_compiled(_widening(numba.float32))
def _widen_float32(stored_N: Any, wide_N: Any) -> None:
    for i in range(stored_N.size):
        wide_N[i] = stored_N[i]


@_compiled("float64(float64[::1], float64[::1], int64, int64)")
def _leaf(a_N: Any, b_N: Any, start: int, size: int) -> Any:
    """Inner product over at most LEAF elements, in the order of numpy's (multiply, then sum)."""
    a, b = a_N[start : start + size], b_N[start : start + size]
    if size < 8:
        total = -0.0
        for i in range(size):
            total += a[i] * b[i]
        return total
    r0, r1, r2, r3 = a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]
    r4, r5, r6, r7 = a[4] * b[4], a[5] * b[5], a[6] * b[6], a[7] * b[7]
    whole = size - size % 8
    for eighth in range(1, size // 8):
        at: Any = np.uint64(eighth) * np.uint64(8)
        r0 += a[at] * b[at]
        r1 += a[at + np.uint64(1)] * b[at + np.uint64(1)]
        r2 += a[at + np.uint64(2)] * b[at + np.uint64(2)]
        r3 += a[at + np.uint64(3)] * b[at + np.uint64(3)]
        r4 += a[at + np.uint64(4)] * b[at + np.uint64(4)]
        r5 += a[at + np.uint64(5)] * b[at + np.uint64(5)]
        r6 += a[at + np.uint64(6)] * b[at + np.uint64(6)]
        r7 += a[at + np.uint64(7)] * b[at + np.uint64(7)]
    total = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
    for i in range(whole, size):
        total += a[i] * b[i]
    return total


@_compiled("void(float64[::1], float64[::1])")
def _subtract(weights_N: Any, init_N: Any) -> None:
    for i in range(weights_N.size):
        weights_N[i] -= init_N[i]


@_compiled("void(float64[:,::1], int64[::1], int64[::1], float64[:,:,::1], float64[:,::1])")
def _products(weights_KN: Any, leaves: Any, joins: Any, stack: Any, products_KK: Any) -> None:
    """Row by row of a leaf while it is in the first cache; `stack` holds the sums of halves that wait for the other one."""
    num_rows = weights_KN.shape[0]
    top = start = 0
    for leaf in range(leaves.size):
        for row in range(1, num_rows):
            _subtract(weights_KN[row, start : start + leaves[leaf]], weights_KN[0, start : start + leaves[leaf]])
        for row in range(num_rows):
            for column in range(row + 1):
                stack[top, row, column] = _leaf(weights_KN[row], weights_KN[column], start, leaves[leaf])
        top += 1
        for _ in range(joins[leaf]):
            top -= 1
            for row in range(num_rows):
                for column in range(row + 1):
                    stack[top - 1, row, column] += stack[top, row, column]
        start += leaves[leaf]
    for row in range(num_rows):
        for column in range(row + 1):
            products_KK[row, column] = products_KK[column, row] = 0.0 + stack[0, row, column]


@_compiled("void(float64[::1], float64, float64[::1], boolean)")
def _add(sum_N: Any, factor: float, term_N: Any, is_first: bool) -> None:
    if is_first:
        for i in range(term_N.size):
            sum_N[i] = factor * term_N[i]
    else:
        for i in range(term_N.size):
            sum_N[i] += factor * term_N[i]


@_compiled("boolean(float64[::1], float32[::1])")
def _round(exact_N: Any, rounded_N: Any) -> bool:
    """Whether all of them are finite: found in integers, whose maximum may be taken in any order, hence in vectors."""
    for i in range(rounded_N.size):
        rounded_N[i] = np.float32(exact_N[i])
    bits_N = rounded_N.view(np.uint32)
    largest = np.uint32(0)
    for i in range(bits_N.size):
        largest = max(largest, bits_N[i] & _MAGNITUDE)
    return bool(largest < _INFINITY)


@_compiled("boolean(float64[:,::1], float64[::1], float64, float32[::1], float32[::1])")
def _combine(weights_KN: Any, factors_K: Any, liti_rate: float, merged_N: Any, next_init_N: Any) -> bool:
    """Terms with factor 0 are left out, as in liti.py."""
    merged, next_init = np.empty(_CHUNK), np.empty(_CHUNK)
    fits = True
    for start in range(0, merged_N.size, _CHUNK):
        end = min(start + _CHUNK, merged_N.size)
        is_first = True
        for row in range(weights_KN.shape[0]):
            if factors_K[row] != 0.0:
                _add(merged, factors_K[row], weights_KN[row, start:end], is_first)
                is_first = False
        if liti_rate != 1.0:
            _add(next_init, 1.0 - liti_rate, weights_KN[0, start:end], True)
        if liti_rate != 0.0:
            _add(next_init, liti_rate, merged[: end - start], liti_rate == 1.0)
        fits &= _round(merged, merged_N[start:end])
        fits &= _round(next_init, next_init_N[start:end])
    return fits


def widen(stored_N: Stored, wide_N: Float64) -> None:
    """float32, float16, or bfloat16 as uint16 into float64, exactly: (N,) each, contiguous."""
    if not stored_N.flags.aligned:  # a tensor begins anywhere in what was read
        stored_N = stored_N.copy()
    if stored_N.dtype == np.uint16:
        _widen_bfloat16(stored_N, wide_N)
    elif stored_N.dtype == np.float16:
        _widen_float16(stored_N.view(np.uint16), wide_N)
    else:
        _widen_float32(stored_N, wide_N)


def products(weights_KN: Float64) -> Float64:
    """task_vector.products, to the bit: (K, K). weights_KN, C-contiguous, is overwritten as there."""
    num_rows, size = weights_KN.shape
    leaves, joins = _summation_order(size)
    products_KK = np.empty((num_rows, num_rows))
    _products(weights_KN, leaves, joins, np.empty((64, num_rows, num_rows)), products_KK)
    return products_KK


def combine(
    weights_KN: Float64, slerp_weights_M: Float64, *, liti_rate: float, merged_N: Float32, next_init_N: Float32
) -> None:
    """liti.put_back, liti.liti and one rounding of each, to the bit, into two float32 arrays of shape (N,).

    FloatingPointError when a value is not finite in float32.
    """
    factors_K = np.array([1.0 - math.fsum(slerp_weights_M), *slerp_weights_M])
    if not _combine(weights_KN, factors_K, liti_rate, merged_N, next_init_N):
        raise FloatingPointError("beyond float32")


@lru_cache(maxsize=64)
def _summation_order(size: int) -> tuple[Int64, Int64]:
    """Pairwise summation as a program: lengths of the leaves, and how often the last two sums are joined after each."""
    leaves: list[int] = []
    joins: list[int] = []

    def split(length: int) -> None:
        if length <= LEAF:
            leaves.append(length)
            joins.append(0)
            return
        left = length // 2 - length // 2 % 8
        split(left)
        split(length - left)
        joins[-1] += 1

    split(size)
    return np.array(leaves, np.int64), np.array(joins, np.int64)
