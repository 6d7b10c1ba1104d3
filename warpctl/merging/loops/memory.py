"""Reading and writing numbers at addresses, and weights as they are stored. A value's kind is how it is stored.

Loops over these are made vectors of by LLVM; nothing is contracted or reordered, so that all processors give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from warpctl.merging.kernels import BFLOAT16, FLOAT16, FLOAT32, PIECE_ELEMENTS, STRIDE_BYTES

PIECE: Final = PIECE_ELEMENTS
STRIDE: Final = np.uint64(STRIDE_BYTES)

_INFINITY: Final = np.uint32(0x7F800000)
_SIXTEEN: Final = np.uint32(16)
_TWO_TO_112: Final = np.float32(2.0**112)

loop: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(nogil=True)
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


def _same_bits(result: Any, argument: Any, llvm_result: Any) -> Any:
    """The bits of a value as another type."""
    return intrinsic(
        lambda _context, _value: (
            result(argument),
            lambda _context, builder, _signature, arguments: builder.bitcast(*arguments, llvm_result),
        )
    )


uint16_at = _reader(numba.uint16, ir.IntType(16))
uint64_at = _reader(numba.uint64, ir.IntType(64))
int64_at = _reader(numba.int64, ir.IntType(64))
float32_at = _reader(numba.float32, ir.FloatType())
float64_at = _reader(numba.float64, ir.DoubleType())
put_uint16 = _writer(numba.uint16, ir.IntType(16))
put_uint32 = _writer(numba.uint32, ir.IntType(32))
put_float32 = _writer(numba.float32, ir.FloatType())
put_float64 = _writer(numba.float64, ir.DoubleType())
float32_of = _same_bits(numba.float32, numba.uint32, ir.FloatType())
bits_of_float32 = _same_bits(numba.uint32, numba.float32, ir.IntType(32))
float64_of = _same_bits(numba.float64, numba.uint64, ir.DoubleType())
bits_of_float64 = _same_bits(numba.uint64, numba.float64, ir.IntType(64))


@loop
def value_at(kind: int, address: Any, index: int) -> Any:
    """A float32 or bfloat16, widened. Inlined: LLVM asks for the kind once, before a loop, and not in it."""
    if kind == BFLOAT16:
        return np.float64(float32_of(np.uint32(np.uint32(uint16_at(address, index)) << _SIXTEEN)))
    return np.float64(float32_at(address, index))


@loop
def place_of(kind: int, address: Any, element: int) -> Any:
    """Address of an element."""
    return address + np.uint64(element) * np.uint64(4 if kind == FLOAT32 else 2)


@loop
def without_halves(kind: int, address: Any, size: int, narrow: Any) -> Any:
    """Kind and address of what `value_at` takes: a float16 piece is first made float32, in `narrow`, exactly.

    A half's exponent and fraction, moved to where a float32 has its own, are that half times 2**-112, subnormals too.
    """
    if kind != FLOAT16:
        return kind, address
    for i in range(size):
        half = np.uint32(uint16_at(address, i))
        special = _INFINITY if np.uint32(half & np.uint32(0x7C00)) == np.uint32(0x7C00) else np.uint32(0)
        sign = np.uint32((half & np.uint32(0x8000)) << _SIXTEEN)
        small = float32_of(np.uint32(np.uint32((half & np.uint32(0x7FFF)) << np.uint32(13)) | sign | special))
        put_float32(narrow, i, small * _TWO_TO_112)
    return FLOAT32, narrow


@loop
def widen(kind: int, address: Any, size: int, result: Any) -> None:
    """To float64."""
    for i in range(size):
        put_float64(result, i, value_at(kind, address, i))
