"""The merge's inner loops as Python calls them: inner products, and the combination with one rounding.

They read weights as they are stored and give the bits that numpy gives (task_vector.py and liti.py, which the tests hold them
to), on any processor. They release the interpreter's lock. Their source is in loops/; compiled_code.py finds or compiles them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from warpctl.merging import compiled_code
from warpctl.merging.task_vector import BLOCK_ELEMENTS, LANES

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
UInt16 = npt.NDArray[np.uint16]
Stored = npt.NDArray[Any]

PIECE_ELEMENTS: Final = 8 * LANES
"""Worked on at a time: eight rows of LANES."""
STRIDE_BYTES: Final = PIECE_ELEMENTS * 8 + 128
"""From piece to piece: what lies a multiple of 4 KiB apart looks the same to a processor's store buffer."""

FLOAT32, FLOAT16, BFLOAT16 = 0, 1, 2
"""Kinds: how a weight is stored."""
_KINDS: Final = {np.dtype(np.float32): FLOAT32, np.dtype(np.float16): FLOAT16, np.dtype(np.uint16): BFLOAT16}


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
        self.addresses_K = np.array([_address(stored_N) for stored_N in stored_K], np.uint64)
        self._alive = tuple(stored_K)


class Rounded(NamedTuple):
    """Where a result goes, rounded to one type, to both or to none: (N,) each, or empty where it is not wanted."""

    float32_N: Float32
    bfloat16_N: UInt16


def prepare() -> None:
    """Load the kernels, and compile them if need be."""
    for name in compiled_code.ARGUMENTS:
        compiled_code.kernel(name)


def inner_products(inputs: Inputs, elements: slice, products_BKK: Float64) -> None:
    """task_vector.inner_products of consecutive blocks, to the bit. `elements` begin with a block; B is their number of blocks."""
    num_vectors = inputs.kinds_K.size
    _check_within(inputs, elements)
    num_blocks = max(-(-(elements.stop - elements.start) // BLOCK_ELEMENTS), 1)
    wanted = np.dtype(np.float64), (num_blocks, num_vectors, num_vectors)
    if (products_BKK.dtype, products_BKK.shape) != wanted or not products_BKK.flags.c_contiguous:
        raise ValueError(f"products of shape {products_BKK.shape} for {num_vectors} inputs and {num_blocks} blocks")
    scratch = _scratch(1 + num_vectors + num_vectors * (num_vectors + 1) // 2)
    compiled_code.kernel("inner_products")(
        _address(inputs.kinds_K),
        _address(inputs.addresses_K),
        num_vectors,
        elements.start,
        elements.stop,
        _address(scratch),
        _address(products_BKK),
        len(products_BKK),
    )


def combine(
    inputs: Inputs,
    factors_K: Float64,
    elements: slice,
    *,
    liti_rate: float,
    merged: Rounded,
    next_init: Rounded,
) -> None:
    """`merged`, the sum of the inputs each times its factor, `next_init` by liti.liti; each rounded once to each type wanted.

    Arrays have as many elements as `elements`. A term with factor 0 is left out. With coefficients.factors_of_policies it is
    liti.put_back, to the bit. FloatingPointError when a value that is wanted is not finite in its type.
    """
    _check_within(inputs, elements)
    if factors_K.shape != inputs.kinds_K.shape or not factors_K.any():
        raise ValueError(f"factors {factors_K.tolist()} for {inputs.kinds_K.size} inputs")
    factors_K = np.ascontiguousarray(factors_K, np.float64)
    wanted: tuple[Stored, ...] = (*merged, *next_init)
    for array, dtype in zip(wanted, (np.float32, np.uint16) * 2, strict=True):
        if (
            array.dtype != dtype
            or array.size not in (0, elements.stop - elements.start)
            or not array.flags.c_contiguous
        ):
            raise ValueError(f"{array.size} elements of {array.dtype} for those of {elements}")
    results = np.array([_address(array) if array.size else 0 for array in wanted], np.uint64)
    scratch, is_finite = _scratch(5), np.zeros(1)
    compiled_code.kernel("combine")(
        _address(inputs.kinds_K),
        _address(inputs.addresses_K),
        factors_K.size,
        elements.start,
        elements.stop,
        _address(factors_K),
        liti_rate,
        _address(scratch),
        _address(results),
        _address(is_finite),
    )
    if not is_finite[0]:
        raise FloatingPointError("beyond the range of its type")


def _check_within(inputs: Inputs, elements: slice) -> None:
    if not 0 <= elements.start <= elements.stop <= inputs.size:
        raise ValueError(f"elements {elements.start} to {elements.stop} of {inputs.size}")


def _scratch(num_pieces: int) -> npt.NDArray[np.uint8]:
    return np.empty(num_pieces * STRIDE_BYTES, np.uint8)


def _address(array: Stored) -> int:
    return int(array.__array_interface__["data"][0])
