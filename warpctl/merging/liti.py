"""Putting the merged task vector back on the init, and LITI: linear interpolation toward the init.

    merged    = init + sum_m w_m (theta_m - init) = (1 - sum_m w_m) init + sum_m w_m theta_m
    next_init = (1 - eta) init + eta merged                          (arXiv 2406.16768, Algorithm 1, line 13)

The right-hand form is exact where it should be: one member gives that policy bit for bit, eta = 0 the init, eta = 1 merged.
Everything is float64 until the one rounding (nearest, ties to even), of `merged` and of `next_init` each, to float32 or
bfloat16; bfloat16 is not rounded by way of float32, which would round twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
UInt16 = npt.NDArray[np.uint16]

_FRACTION_BITS = 7
_SMALLEST_EXPONENT = -126


def put_back(weights_KN: Float64, slerp_weights_M: Float64) -> Float64:
    """Merged policy of one block, unrounded: (N,). weights_KN: the init first, then the members' weights."""
    return _weighted_sum(weights_KN, (1.0 - math.fsum(slerp_weights_M), *slerp_weights_M.tolist()))


def liti(init_N: Float64, merged_N: Float64, *, liti_rate: float) -> Float64:
    """(1 - eta) init + eta merged, unrounded: (N,). eta above 1 extrapolates (only the output front does)."""
    return _weighted_sum((init_N, merged_N), (1.0 - liti_rate, liti_rate))


def _weighted_sum(terms: Iterable[Float64], factors: Iterable[float]) -> Float64:
    """Terms with factor 0 are left out: adding their 0.0 would turn a -0.0 into 0.0."""
    products = (factor * term_N for factor, term_N in zip(factors, terms, strict=True) if factor)
    return reduce(np.add, products)


def round_once(values_N: Float64) -> Float32:
    """To float32, nearest even; FloatingPointError where a finite number would become Inf."""
    with np.errstate(over="raise", under="ignore"):
        return values_N.astype(np.float32)


def round_once_to_bfloat16(values_N: Float64) -> UInt16:
    """To bfloat16 (its bits), nearest even, from float64 directly; FloatingPointError where a finite number would become Inf.

    A bfloat16 is a whole number of units: 2**-7 of the power of two below it, or of 2**-126 if that is more.
    """
    _, exponents_N = np.frexp(values_N)
    units_N = np.ldexp(1.0, np.maximum(exponents_N - 1, _SMALLEST_EXPONENT) - _FRACTION_BITS)
    rounded_N = np.rint(values_N / units_N) * units_N
    bits_N = round_once(rounded_N).view(np.uint32) >> np.uint32(16)
    return bits_N.astype(np.uint16)
