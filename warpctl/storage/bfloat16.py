"""bfloat16 as uint16, since numpy has no such type: the upper half of a float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
UInt16 = npt.NDArray[np.uint16]

_QUIET = np.uint32(0x40)
_HALF_BELOW = np.uint32(0x7FFF)


def bfloat16_to_float32(bits: UInt16) -> Float32:
    """Exact, any shape: Inf, NaN payloads, signed zeros and subnormals included."""
    wide = bits.astype(np.uint32)
    wide <<= np.uint32(16)
    return wide.view(np.float32)


def float32_to_bfloat16(values: Float32) -> UInt16:
    """Nearest, ties to even, any shape. What is too large becomes Inf; a NaN stays a NaN (made quiet, its sign kept).

    Adding 0x7FFF plus the lowest bit that stays carries into it exactly when the cut-off half is above a tie,
    or at a tie with an odd result.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + (_HALF_BELOW + ((bits >> np.uint32(16)) & np.uint32(1)))
    rounded >>= np.uint32(16)
    is_nan = np.isnan(values)
    return np.where(is_nan, (bits >> np.uint32(16)) | _QUIET, rounded).astype(np.uint16)
