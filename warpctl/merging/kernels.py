"""The merge's inner loops, compiled by numba: inner products, and the combination with one rounding.

They read weights as they are stored, in pieces whose float64 stays in the first cache, and give the bits that numpy gives
(task_vector.py and liti.py, which the tests hold them to): nothing is contracted or reordered, on any machine. The loops are
written so that LLVM makes vectors of them. They release the interpreter's lock.

Imported by the merge worker alone: numba takes some tenths of a second to import and is no business of the controller's.
Compiled code is kept where compiled_code.py says.
"""

# ruff: noqa: E402, PLR0917  # numba reads its environment when it is imported; its signatures know positions only

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from warpctl.merging import compiled_code
from warpctl.merging.task_vector import BLOCK_ELEMENTS, LANES

compiled_code.prepare()

import numba
from llvmlite import ir
from numba.extending import intrinsic

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
UInt16 = npt.NDArray[np.uint16]
Stored = npt.NDArray[Any]

_ROWS = 8
"""Rows of LANES elements in a piece."""
_PIECE = _ROWS * LANES

_KINDS: Final = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.uint16): 2}
_FLOAT32, _FLOAT16, _BFLOAT16 = 0, 1, 2

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_BELOW_HALF = np.uint32(0x7FFF)
_ONE, _SIXTEEN = np.uint32(1), np.uint32(16)
_TWO_TO_112 = np.float32(2.0**112)
_TWO_TO_100 = 2.0**100


class Inputs:
    """K flat tensors of the same size as they are stored: float32, float16, or bfloat16 as uint16, mixed.

    They may begin at any address and be read-only. ValueError when they are anything else: kernels take addresses on trust.
    """

    def __init__(self, stored_K: Sequence[Stored]) -> None:
        for stored_N in stored_K:
            if stored_N.dtype not in _KINDS or stored_N.shape != (stored_K[0].size,) or not stored_N.flags.c_contiguous:
                raise ValueError(f"{stored_N.dtype} {stored_N.shape} beside {stored_K[0].shape}")
        self.size = stored_K[0].size
        self.kinds_K = np.array([_KINDS[stored_N.dtype] for stored_N in stored_K], np.int64)
        self.addresses_K = np.array([stored_N.__array_interface__["data"][0] for stored_N in stored_K], np.uint64)
        self._alive = tuple(stored_K)


class Rounded(NamedTuple):
    """Where a result goes, rounded to one type, to both or to none: (N,) each, or empty where it is not wanted."""

    float32_N: Float32
    bfloat16_N: UInt16


def _compiled(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A kernel: compiled, or found compiled, when this module is imported, and with it the loops that it calls."""

    def compile_it(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(signature, nogil=True, cache=True)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # numba: no folder for its cache
            return numba.njit(signature, nogil=True)(function)  # type: ignore[no-any-return]

    return compile_it


_loop: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(nogil=True)
"""Compiled within the kernels that call it."""


def _load(builder: Any, bits: int, address: Any, index: Any) -> Any:
    pointer = builder.inttoptr(address, ir.IntType(bits).as_pointer())
    return builder.load(builder.gep(pointer, [index]), align=1)


@intrinsic  # type: ignore[untyped-decorator]
def _uint16_at(_context: Any, _address: Any, _index: Any) -> Any:
    """The uint16 that many places after an address, which need not be even."""
    signature = numba.uint16(numba.uint64, numba.int64)
    return signature, lambda _context, builder, _signature, arguments: _load(builder, 16, *arguments)


@intrinsic  # type: ignore[untyped-decorator]
def _uint32_at(_context: Any, _address: Any, _index: Any) -> Any:
    signature = numba.uint32(numba.uint64, numba.int64)
    return signature, lambda _context, builder, _signature, arguments: _load(builder, 32, *arguments)


@intrinsic  # type: ignore[untyped-decorator]
def _float32_of(_context: Any, _bits: Any) -> Any:
    signature = numba.float32(numba.uint32)
    return signature, lambda _context, builder, _signature, arguments: builder.bitcast(*arguments, ir.FloatType())


@intrinsic  # type: ignore[untyped-decorator]
def _bits_of(_context: Any, _value: Any) -> Any:
    signature = numba.uint32(numba.float32)
    return signature, lambda _context, builder, _signature, arguments: builder.bitcast(*arguments, ir.IntType(32))


@_loop
def _value(kind: int, address: Any, index: int) -> Any:
    """One stored value, widened exactly. Inlined: LLVM asks for the kind once, before a loop, and not in it."""
    if kind == _BFLOAT16:
        return np.float64(_float32_of(np.uint32(_uint16_at(address, index)) << _SIXTEEN))
    if kind == _FLOAT16:
        # Its exponent and fraction, moved to where a float32 has its own, are this half times 2**-112, subnormals too.
        half = np.uint32(_uint16_at(address, index))
        special = _INFINITY if (half & np.uint32(0x7C00)) == np.uint32(0x7C00) else np.uint32(0)
        sign = (half & np.uint32(0x8000)) << _SIXTEEN
        small = _float32_of(((half & np.uint32(0x7FFF)) << np.uint32(13)) | sign | special)
        return np.float64(small * _TWO_TO_112)
    return np.float64(_float32_of(_uint32_at(address, index)))


@_loop
def _address_of(kind: int, address: Any, element: int) -> Any:
    return address + np.uint64(element) * np.uint64(4 if kind == _FLOAT32 else 2)


@_loop
def _scaled(kind: int, address: Any, size: int, factor: float, result: Any) -> None:
    for i in range(size):
        result[i] = factor * _value(kind, address, i)


@_loop
def _difference(kind: int, address: Any, size: int, subtracted: Any, result: Any) -> None:
    for i in range(size):
        result[i] = _value(kind, address, i) - subtracted[i]


@_loop
def _first_two(first_factor: float, first: Any, kind: int, address: Any, size: int, factor: float, result: Any) -> None:
    for i in range(size):
        result[i] = first_factor * first[i] + factor * _value(kind, address, i)


@_loop
def _add(kind: int, address: Any, size: int, factor: float, result: Any) -> None:
    for i in range(size):
        result[i] += factor * _value(kind, address, i)


@_loop
def _add_rows(a: Any, b: Any, lanes: Any) -> None:
    """The products of a whole piece, row after row; written out so that a lane stays in its register for all rows."""
    for i in range(LANES):
        total = lanes[i]
        total += a[i] * b[i]
        total += a[i + LANES] * b[i + LANES]
        total += a[i + 2 * LANES] * b[i + 2 * LANES]
        total += a[i + 3 * LANES] * b[i + 3 * LANES]
        total += a[i + 4 * LANES] * b[i + 4 * LANES]
        total += a[i + 5 * LANES] * b[i + 5 * LANES]
        total += a[i + 6 * LANES] * b[i + 6 * LANES]
        total += a[i + 7 * LANES] * b[i + 7 * LANES]
        lanes[i] = total


@_loop
def _halved(lanes: Any) -> Any:
    """Sum of the lanes, the upper half added to the lower until one is left."""
    half = LANES // 2
    while half:
        for i in range(half):
            lanes[i] += lanes[i + half]
        half //= 2
    return lanes[0]


@_compiled("void(int64[::1], uint64[::1], int64, int64, float64[:,:,::1])")
def _inner_products(kinds_K: Any, addresses_K: Any, start: int, stop: int, products_BKK: Any) -> None:
    num_rows = kinds_K.size
    wide_KN = np.empty((num_rows, _PIECE))
    lanes_PL = np.empty((num_rows * (num_rows + 1) // 2, LANES))
    for block in range(products_BKK.shape[0]):
        lanes_PL[:] = 0.0
        first = start + block * BLOCK_ELEMENTS
        last = min(first + BLOCK_ELEMENTS, stop)
        for element in range(first, last, _PIECE):
            size = min(_PIECE, last - element)
            if size < _PIECE:
                wide_KN[:] = 0.0
            for row in range(num_rows):
                address = _address_of(kinds_K[row], addresses_K[row], element)
                if row == 0:
                    _scaled(kinds_K[0], address, size, 1.0, wide_KN[0])
                else:
                    _difference(kinds_K[row], address, size, wide_KN[0], wide_KN[row])
            pair = 0
            for row in range(num_rows):
                for column in range(row + 1):
                    _add_rows(wide_KN[row], wide_KN[column], lanes_PL[pair])
                    pair += 1
        pair = 0
        for row in range(num_rows):
            for column in range(row + 1):
                products_BKK[block, row, column] = products_BKK[block, column, row] = _halved(lanes_PL[pair])
                pair += 1


@_loop
def _round_to_float32(exact_N: Any, rounded_N: Any) -> bool:
    """Whether all of them are finite: found in integers, whose maximum may be taken in any order, hence in vectors."""
    largest = np.uint32(0)
    for i in range(rounded_N.size):
        rounded = np.float32(exact_N[i])
        rounded_N[i] = rounded
        largest = max(largest, np.uint32(_bits_of(rounded) & _MAGNITUDE))
    return bool(largest < _INFINITY)


@_loop
def _round_to_bfloat16(exact_N: Any, rounded_N: Any) -> bool:
    """By way of float32, whose own rounding matters where it makes a tie of what was none: its error then decides.

    The error is scaled, else it could vanish in float32; where that makes it Inf, its sign is what counts.
    """
    largest = np.uint32(0)
    for i in range(rounded_N.size):
        near = np.float32(exact_N[i])
        error = np.float32((exact_N[i] - np.float64(near)) * _TWO_TO_100)
        bits = _bits_of(near)
        is_odd = (bits >> _SIXTEEN) & _ONE
        is_farther_from_0 = np.uint32(((bits ^ _bits_of(error)) >> np.uint32(31)) ^ _ONE)
        up = is_odd if error == np.float32(0) else is_farther_from_0
        rounded = np.uint32(bits + _BELOW_HALF + up)
        rounded_N[i] = np.uint16(rounded >> _SIXTEEN)
        largest = max(largest, np.uint32(bits & _MAGNITUDE), np.uint32(rounded & _MAGNITUDE))
    return bool(largest < _INFINITY)


@_loop
def _round(exact_N: Any, start: int, float32_N: Any, bfloat16_N: Any) -> bool:
    fits = True
    if float32_N.size:
        fits &= _round_to_float32(exact_N, float32_N[start : start + exact_N.size])
    if bfloat16_N.size:
        fits &= _round_to_bfloat16(exact_N, bfloat16_N[start : start + exact_N.size])
    return fits


@_loop
def _interpolate(init_factor: float, init: Any, merged_factor: float, merged: Any, next_init: Any) -> None:
    for i in range(next_init.size):
        next_init[i] = init_factor * init[i] + merged_factor * merged[i]


@_compiled(
    "boolean(int64[::1], uint64[::1], int64, int64, float64[::1], float64,"
    " float32[::1], uint16[::1], float32[::1], uint16[::1])"
)
def _combine(
    kinds_K: Any,
    addresses_K: Any,
    start: int,
    stop: int,
    factors_K: Any,
    liti_rate: float,
    merged_float32_N: Any,
    merged_bfloat16_N: Any,
    next_init_float32_N: Any,
    next_init_bfloat16_N: Any,
) -> bool:
    """Terms with factor 0 are left out, as in liti.py."""
    init_P, merged_P, next_init_P = np.empty(_PIECE), np.empty(_PIECE), np.empty(_PIECE)
    fits = True
    for element in range(start, stop, _PIECE):
        size = min(_PIECE, stop - element)
        init, merged, next_init = init_P[:size], merged_P[:size], next_init_P[:size]
        _scaled(kinds_K[0], _address_of(kinds_K[0], addresses_K[0], element), size, 1.0, init)
        is_first = True
        for row in range(1, kinds_K.size):
            kind, factor = kinds_K[row], factors_K[row]
            address = _address_of(kind, addresses_K[row], element)
            if factor == 0.0:
                continue
            if not is_first:
                _add(kind, address, size, factor, merged)
            elif factors_K[0] == 0.0:
                _scaled(kind, address, size, factor, merged)
            else:
                _first_two(factors_K[0], init, kind, address, size, factor, merged)
            is_first = False
        if is_first:
            merged[:] = init  # no member counts: factors_K[0] is 1
        fits &= _round(merged, element - start, merged_float32_N, merged_bfloat16_N)
        if next_init_float32_N.size or next_init_bfloat16_N.size:
            if liti_rate == 0.0:
                next_init = init
            elif liti_rate == 1.0:
                next_init = merged
            else:
                _interpolate(1.0 - liti_rate, init, liti_rate, merged, next_init)
            fits &= _round(next_init, element - start, next_init_float32_N, next_init_bfloat16_N)
    return fits


def inner_products(inputs: Inputs, elements: slice, products_BKK: Float64) -> None:
    """task_vector.inner_products of consecutive blocks, to the bit. `elements` begin with a block; B is their number of blocks."""
    _inner_products(inputs.kinds_K, inputs.addresses_K, elements.start, elements.stop, products_BKK)


def combine(
    inputs: Inputs,
    slerp_weights_M: Float64,
    elements: slice,
    *,
    liti_rate: float,
    merged: Rounded,
    next_init: Rounded,
) -> None:
    """liti.put_back, liti.liti and one rounding of each to each type wanted, to the bit; arrays of as many elements.

    FloatingPointError when a value that is wanted is not finite in its type.
    """
    factors_K = np.array([1.0 - math.fsum(slerp_weights_M), *slerp_weights_M])
    place = elements.start, elements.stop
    if not _combine(inputs.kinds_K, inputs.addresses_K, *place, factors_K, liti_rate, *merged, *next_init):
        raise FloatingPointError("beyond the range of its type")
