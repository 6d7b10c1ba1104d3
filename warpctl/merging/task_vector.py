"""Task vectors (weights minus init) and the Gram matrix that every SLERP coefficient is a function of.

Sums are taken in float64 over blocks of a fixed size, each in LANES lanes, then exactly over the blocks: the result does not
depend on threads, on the width of a processor's vectors, on BLAS, or on how a checkpoint was cut into shards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

BLOCK_ELEMENTS = 1 << 15
"""Elements whose products are added up in float64; a block's sum is then a term of an exact one."""
LANES = 64
"""Lane l of a block adds up its elements l, l + LANES, l + 2 LANES, ... in this order: as many sums side by side."""

Float64 = npt.NDArray[np.float64]


def blocks(num_elements: int) -> Iterator[slice]:
    """Consecutive slices of at most BLOCK_ELEMENTS that cover a flat tensor; an empty tensor gets one empty slice."""
    for start in range(0, max(num_elements, 1), BLOCK_ELEMENTS):
        yield slice(start, min(start + BLOCK_ELEMENTS, num_elements))


def inner_products(weights_KN: Float64) -> Float64:
    """Inner products within one block: (K, K), of the init and the M task vectors (row 0 is the init).

    weights_KN: float64 (K, N), the init first, then the members' weights. The result is not finite exactly when an input is
    not (squares of float32 numbers fit float64 easily). The difference of two float32 numbers in float64 is exact unless
    they are 2**29 apart.
    """
    num_rows = len(weights_KN)
    products_KK = np.empty((num_rows, num_rows))
    with np.errstate(invalid="ignore"):  # Inf - Inf: the caller finds the NaN in the result and says where it is
        vectors_KN = np.concatenate([weights_KN[:1], weights_KN[1:] - weights_KN[0]])
        for row in range(num_rows):
            for column in range(row + 1):
                products_KK[row, column] = products_KK[column, row] = _sum(vectors_KN[row] * vectors_KN[column])
    return products_KK


def _sum(terms_N: Float64) -> float:
    """Row after row of LANES elements, the last one filled with zeros; then the upper half of the lanes onto the lower."""
    rows_RL = np.concatenate([terms_N, np.zeros(-terms_N.size % LANES)]).reshape(-1, LANES)
    lanes_L = np.add.reduce(rows_RL, axis=0, initial=0.0)
    while lanes_L.size > 1:
        half = lanes_L.size // 2
        lanes_L = lanes_L[:half] + lanes_L[half:]
    return float(lanes_L[0])


def add_up(products_BKK: Float64) -> Float64:
    """Sum of the blocks' products, correctly rounded (math.fsum), so independent of their order: (K, K)."""
    total_KK = np.empty(products_BKK.shape[1:])
    for row, column in np.ndindex(*total_KK.shape):
        total_KK[row, column] = math.fsum(products_BKK[:, row, column].tolist())
    return total_KK


def task_gram(products_KK: Float64) -> Float64:
    """Gram matrix of the task vectors alone, (M, M): all that SLERP needs."""
    return products_KK[1:, 1:]


def weight_gram(products_KK: Float64) -> Float64:
    """Gram matrix of the full weights of the members, (M, M), from <init, init>, <init, delta> and <delta, delta>."""
    with_init_M = products_KK[0, 1:]
    gram_MM: Float64 = products_KK[0, 0] + with_init_M[:, None] + with_init_M[None, :] + products_KK[1:, 1:]
    return gram_MM


def cosines(gram_MM: Float64) -> Float64:
    """Cosine of each pair, within [-1, 1], exactly 1 on the diagonal; NaN where a vector is zero: (M, M)."""
    norms_M = np.sqrt(np.diagonal(gram_MM))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines_MM = gram_MM / norms_M[:, None] / norms_M[None, :]
    cosines_MM = np.clip(cosines_MM, -1.0, 1.0)
    np.fill_diagonal(cosines_MM, np.where(norms_M > 0, 1.0, np.nan))
    return cosines_MM
