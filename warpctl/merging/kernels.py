"""The merge's inner loops, compiled by numba: inner products, and the combination with one rounding.

They read weights as they are stored, in pieces whose float64 stays in the first cache, and give the bits that numpy gives
(task_vector.py and liti.py, which the tests hold them to): nothing is contracted or reordered, on any machine. The loops are
written so that LLVM makes vectors of them. They release the interpreter's lock.

Imported by what merges, when it begins to: numba takes some tenths of a second to import and is no business of the controller's.
Compiled code is kept where compiled_code.py says.
"""

# ruff: noqa: C901, E402, PLR0917  # loops over loops; numba reads its environment when it is imported; its signatures know positions only

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

_PIECE = 8 * LANES
"""Elements worked on at a time: eight rows of LANES. P is for piece, T for the pairs of K rows."""
_STRIDE = np.uint64(_PIECE * 8 + 128)
"""Bytes from piece to piece: what lies a multiple of 4 KiB apart looks the same to a processor's store buffer."""

_KINDS: Final = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.uint16): 2}
_FLOAT32, _FLOAT16, _BFLOAT16 = 0, 1, 2

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_BELOW_HALF = np.uint32(0x7FFF)
_ONE, _SIXTEEN = np.uint32(1), np.uint32(16)
_TWO, _THREE, _FOUR = np.uint64(2), np.uint64(3), np.uint64(4)
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


def _reader(kind: Any, llvm_kind: Any) -> Any:
    """(address, index) -> the value that many places after an address, which may be any."""

    def read(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        address, index = arguments
        return builder.load(builder.gep(builder.inttoptr(address, llvm_kind.as_pointer()), [index]), align=1)

    return intrinsic(lambda _context, _address, _index: (kind(numba.uint64, numba.int64), read))


def _writer(kind: Any, llvm_kind: Any) -> Any:
    """(address, index, value) -> nothing."""

    def write(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        address, index, value = arguments
        builder.store(value, builder.gep(builder.inttoptr(address, llvm_kind.as_pointer()), [index]), align=1)
        return context.get_dummy_value()

    signature = numba.void(numba.uint64, numba.int64, kind)
    return intrinsic(lambda _context, _address, _index, _value: (signature, write))


_uint16_at = _reader(numba.uint16, ir.IntType(16))
_uint32_at = _reader(numba.uint32, ir.IntType(32))
_float32_at = _reader(numba.float32, ir.FloatType())
_float64_at = _reader(numba.float64, ir.DoubleType())
_put_uint16 = _writer(numba.uint16, ir.IntType(16))
_put_uint32 = _writer(numba.uint32, ir.IntType(32))
_put_float32 = _writer(numba.float32, ir.FloatType())
_put_float64 = _writer(numba.float64, ir.DoubleType())


@intrinsic  # type: ignore[untyped-decorator]
def _float32_of(_context: Any, _bits: Any) -> Any:
    signature = numba.float32(numba.uint32)
    return signature, lambda _context, builder, _signature, arguments: builder.bitcast(*arguments, ir.FloatType())


@intrinsic  # type: ignore[untyped-decorator]
def _bits_of(_context: Any, _value: Any) -> Any:
    signature = numba.uint32(numba.float32)
    return signature, lambda _context, builder, _signature, arguments: builder.bitcast(*arguments, ir.IntType(32))


@_loop
def _unpack(kind: int, address: Any, size: int, narrow: Any) -> None:
    """Values of 16 bits into float32, exactly, in loops that know no wider type: vectors are as long as can be."""
    if kind == _BFLOAT16:
        for i in range(size):
            _put_uint32(narrow, i, np.uint32(np.uint32(_uint16_at(address, i)) << _SIXTEEN))
    else:
        # A half's exponent and fraction, moved to where a float32 has its own, are that half times 2**-112, subnormals too.
        for i in range(size):
            half = np.uint32(_uint16_at(address, i))
            special = _INFINITY if np.uint32(half & np.uint32(0x7C00)) == np.uint32(0x7C00) else np.uint32(0)
            sign = np.uint32((half & np.uint32(0x8000)) << _SIXTEEN)
            small = _float32_of(np.uint32(np.uint32((half & np.uint32(0x7FFF)) << np.uint32(13)) | sign | special))
            _put_float32(narrow, i, small * _TWO_TO_112)


@_loop
def _without_halves(kind: int, address: Any, size: int, narrow: Any) -> Any:
    """Kind and address of what `_value` takes."""
    if kind == _FLOAT16:
        _unpack(kind, address, size, narrow)
        return _FLOAT32, narrow
    return kind, address


@_loop
def _value(kind: int, address: Any, index: int) -> Any:
    """A float32 or bfloat16, widened. Inlined: LLVM asks for the kind once, before a loop, and not in it."""
    if kind == _BFLOAT16:
        return np.float64(_float32_of(np.uint32(np.uint32(_uint16_at(address, index)) << _SIXTEEN)))
    return np.float64(_float32_at(address, index))


@_loop
def _widen(kind: int, address: Any, size: int, result: Any) -> None:
    for i in range(size):
        _put_float64(result, i, _value(kind, address, i))


@_loop
def _difference(kind: int, address: Any, size: int, subtracted: Any, result: Any) -> None:
    for i in range(size):
        _put_float64(result, i, _value(kind, address, i) - _float64_at(subtracted, i))


@_loop
def _clear(start: int, stop: int, result: Any) -> None:
    for i in range(start, stop):
        _put_float64(result, i, 0.0)


@_loop
def _scaled(factor: float, kind: int, address: Any, size: int, result: Any) -> None:
    for i in range(size):
        _put_float64(result, i, factor * _value(kind, address, i))


@_loop
def _first_two(factor_a: float, a: Any, factor_b: float, kind: int, b: Any, size: int, result: Any) -> None:
    for i in range(size):
        term_a, term_b = factor_a * np.float64(_float32_at(a, i)), factor_b * _value(kind, b, i)
        _put_float64(result, i, term_a + term_b)


@_loop
def _add(factor: float, kind: int, address: Any, size: int, result: Any) -> None:
    for i in range(size):
        _put_float64(result, i, _float64_at(result, i) + factor * _value(kind, address, i))


@_loop
def _interpolate(factor_a: float, a: Any, factor_b: float, b: Any, size: int, result: Any) -> None:
    for i in range(size):
        _put_float64(result, i, factor_a * np.float64(_float32_at(a, i)) + factor_b * _float64_at(b, i))


@_loop
def _add_rows(a: Any, b: Any, lanes: Any) -> None:
    """The products of a whole piece, row after row; written out so that a lane stays in its register for all rows."""
    for i in range(LANES):
        lane = _float64_at(lanes, i)
        lane += _float64_at(a, i) * _float64_at(b, i)
        lane += _float64_at(a, i + LANES) * _float64_at(b, i + LANES)
        lane += _float64_at(a, i + 2 * LANES) * _float64_at(b, i + 2 * LANES)
        lane += _float64_at(a, i + 3 * LANES) * _float64_at(b, i + 3 * LANES)
        lane += _float64_at(a, i + 4 * LANES) * _float64_at(b, i + 4 * LANES)
        lane += _float64_at(a, i + 5 * LANES) * _float64_at(b, i + 5 * LANES)
        lane += _float64_at(a, i + 6 * LANES) * _float64_at(b, i + 6 * LANES)
        lane += _float64_at(a, i + 7 * LANES) * _float64_at(b, i + 7 * LANES)
        _put_float64(lanes, i, lane)


@_loop
def _halved(lanes: Any) -> Any:
    """Sum of the lanes, the upper half added to the lower until one is left."""
    half = LANES // 2
    while half:
        for i in range(half):
            _put_float64(lanes, i, _float64_at(lanes, i) + _float64_at(lanes, i + half))
        half //= 2
    return _float64_at(lanes, 0)


@_loop
def _place_of(kind: int, address: Any, element: int) -> Any:
    return address + np.uint64(element) * np.uint64(4 if kind == _FLOAT32 else 2)


@_compiled("void(int64[::1], uint64[::1], int64, int64, uint64, float64[:,:,::1])")
def _inner_products(kinds_K: Any, addresses_K: Any, start: int, stop: int, scratch: Any, products_BKK: Any) -> None:
    """Scratch: a narrow piece, K wide ones, then the lanes of each pair."""
    num_rows = kinds_K.size
    narrow, wide, lanes = scratch, scratch + _STRIDE, scratch + np.uint64(num_rows + 1) * _STRIDE
    for block in range(products_BKK.shape[0]):
        for pair in range(num_rows * (num_rows + 1) // 2):
            _clear(0, LANES, lanes + np.uint64(pair) * _STRIDE)
        first = start + block * BLOCK_ELEMENTS
        last = min(first + BLOCK_ELEMENTS, stop)
        for element in range(first, last, _PIECE):
            size = min(_PIECE, last - element)
            for row in range(num_rows):
                kind, place = kinds_K[row], _place_of(kinds_K[row], addresses_K[row], element)
                kind, place = _without_halves(kind, place, size, narrow)
                vector = wide + np.uint64(row) * _STRIDE
                if row == 0:
                    _widen(kind, place, size, vector)
                else:
                    _difference(kind, place, size, wide, vector)
                _clear(size, _PIECE, vector)
            pair = 0
            for row in range(num_rows):
                for column in range(row + 1):
                    one, two = wide + np.uint64(row) * _STRIDE, wide + np.uint64(column) * _STRIDE
                    _add_rows(one, two, lanes + np.uint64(pair) * _STRIDE)
                    pair += 1
        pair = 0
        for row in range(num_rows):
            for column in range(row + 1):
                total = _halved(lanes + np.uint64(pair) * _STRIDE)
                products_BKK[block, row, column] = products_BKK[block, column, row] = total
                pair += 1


@_loop
def _round_to_float32(exact: Any, size: int, rounded: Any) -> Any:
    """The largest magnitude, in bits: a maximum of integers may be taken in any order, hence in vectors."""
    largest = np.uint32(0)
    for i in range(size):
        near = np.float32(_float64_at(exact, i))
        _put_float32(rounded, i, near)
        largest = max(largest, np.uint32(_bits_of(near) & _MAGNITUDE))
    return largest


@_loop
def _round_to_bfloat16(exact: Any, size: int, near: Any, error: Any, rounded: Any) -> Any:
    """By way of float32, whose own rounding matters where it makes a tie of what was none: its error then decides.

    The error is scaled, else it could vanish in float32; where that makes it Inf, its sign is what counts.
    """
    for i in range(size):
        value = np.float32(_float64_at(exact, i))
        _put_float32(near, i, value)
        _put_float32(error, i, np.float32((_float64_at(exact, i) - np.float64(value)) * _TWO_TO_100))
    largest = np.uint32(0)
    for i in range(size):
        bits, error_bits = _uint32_at(near, i), _uint32_at(error, i)
        is_odd = np.uint32((bits >> _SIXTEEN) & _ONE)
        is_farther_from_0 = np.uint32(((bits ^ error_bits) >> np.uint32(31)) ^ _ONE)
        up = is_odd if np.uint32(error_bits & _MAGNITUDE) == np.uint32(0) else is_farther_from_0
        whole = np.uint32(bits + _BELOW_HALF + up)
        _put_uint16(rounded, i, np.uint16(whole >> _SIXTEEN))
        largest = max(largest, np.uint32(bits & _MAGNITUDE), np.uint32(whole & _MAGNITUDE))
    return largest


@_loop
def _round(exact: Any, size: int, offset: int, scratch: Any, float32: Any, bfloat16: Any) -> bool:
    """Whether all values wanted are finite; an address of 0 is not wanted."""
    largest = np.uint32(0)
    if float32:
        largest = _round_to_float32(exact, size, float32 + np.uint64(offset) * np.uint64(4))
    if bfloat16:
        place = bfloat16 + np.uint64(offset) * np.uint64(2)
        largest = max(largest, _round_to_bfloat16(exact, size, scratch, scratch + _STRIDE, place))
    return bool(largest < _INFINITY)


@_compiled("boolean(int64[::1], uint64[::1], int64, int64, float64[::1], float64, uint64, uint64[::1])")
def _combine(
    kinds_K: Any,
    addresses_K: Any,
    start: int,
    stop: int,
    factors_K: Any,
    liti_rate: float,
    scratch: Any,
    results: Any,
) -> bool:
    """Terms with factor 0 are left out, as in liti.py. Scratch: six pieces. Results: merged in both types, next init in both."""
    narrow, merged, interpolated = scratch + _STRIDE, scratch + _TWO * _STRIDE, scratch + _THREE * _STRIDE
    rest = scratch + _FOUR * _STRIDE
    fits = True
    for element in range(start, stop, _PIECE):
        size = min(_PIECE, stop - element)
        init = _place_of(kinds_K[0], addresses_K[0], element)
        if kinds_K[0] != _FLOAT32:
            _unpack(kinds_K[0], init, size, scratch)
            init = scratch
        is_first = True
        for row in range(1, kinds_K.size):
            if factors_K[row] == 0.0:
                continue
            kind, place = kinds_K[row], _place_of(kinds_K[row], addresses_K[row], element)
            kind, place = _without_halves(kind, place, size, narrow)
            if not is_first:
                _add(factors_K[row], kind, place, size, merged)
            elif factors_K[0] == 0.0:
                _scaled(factors_K[row], kind, place, size, merged)
            else:
                _first_two(factors_K[0], init, factors_K[row], kind, place, size, merged)
            is_first = False
        if is_first:
            _widen(_FLOAT32, init, size, merged)  # no member counts: factors_K[0] is 1
        fits &= _round(merged, size, element - start, rest, results[0], results[1])
        if not results[2] and not results[3]:
            continue
        next_init = merged if liti_rate == 1.0 else interpolated
        if liti_rate == 0.0:
            _widen(_FLOAT32, init, size, next_init)
        elif liti_rate != 1.0:
            _interpolate(1.0 - liti_rate, init, liti_rate, merged, size, next_init)
        fits &= _round(next_init, size, element - start, rest, results[2], results[3])
    return fits


def inner_products(inputs: Inputs, elements: slice, products_BKK: Float64) -> None:
    """task_vector.inner_products of consecutive blocks, to the bit. `elements` begin with a block; B is their number of blocks."""
    num_rows = inputs.kinds_K.size
    scratch = _scratch(1 + num_rows + num_rows * (num_rows + 1) // 2)
    place = elements.start, elements.stop
    _inner_products(inputs.kinds_K, inputs.addresses_K, *place, _address(scratch), products_BKK)


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
    wanted: tuple[Stored, ...] = (*merged, *next_init)
    for array, dtype in zip(wanted, (np.float32, np.uint16) * 2, strict=True):
        if (
            array.dtype != dtype
            or array.size not in (0, elements.stop - elements.start)
            or not array.flags.c_contiguous
        ):
            raise ValueError(f"{array.size} elements of {array.dtype} for those of {elements}")
    scratch = _scratch(6)
    results = np.array([_address(array) if array.size else 0 for array in wanted], np.uint64)
    if not _combine(inputs.kinds_K, inputs.addresses_K, *place, factors_K, liti_rate, _address(scratch), results):
        raise FloatingPointError("beyond the range of its type")


def _scratch(num_pieces: int) -> npt.NDArray[np.uint8]:
    return np.empty(num_pieces * int(_STRIDE), np.uint8)


def _address(array: Stored) -> np.uint64:
    return np.uint64(array.__array_interface__["data"][0])
