"""SLERP of M task vectors, as coefficients that depend on their Gram matrix alone.

Two vectors (arXiv 2406.16768, section 3.2): with Omega the angle between them,

    slerp(u, v; lambda) = sin((1 - lambda) Omega) / sin(Omega) u + sin(lambda Omega) / sin(Omega) v.

The vectors are not normalised: equal norms are kept, different ones are interpolated. Where the formula has no value:

- parallel (Omega below PARALLEL_ANGLE): LERP, (1 - lambda) u + lambda v, which is its limit;
- antiparallel (1 + cos Omega at most ANTIPARALLEL): there is no shortest path, the coefficients grow without bound,
  and a small difference of the norms would be blown up: LERP, recorded as `Antiparallel`;
- a zero vector has no direction, hence no angle: LERP, recorded as `Zero`. It pulls the result toward the init.

All arithmetic is float64. Coefficients do not change when all task vectors are scaled together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from warpctl.errors import NumericsError
from warpctl.merging.task_vector import cosines
from warpctl.spec.merge_method import SlerpOrder

PARALLEL_ANGLE = 1e-6
"""Radians. Below it LERP differs from SLERP by less than 2e-13 of the vectors."""
ANTIPARALLEL = 1e-6
"""Smallest 1 + cos Omega for SLERP: about 0.08 degrees from antiparallel, where coefficients reach 707."""

Float64 = npt.NDArray[np.float64]


class Degenerate(StrEnum):
    """What was met on the way to the coefficients and is not plain SLERP."""

    ZERO = "Zero"
    PARALLEL = "Parallel"
    ANTIPARALLEL = "Antiparallel"


@dataclass(frozen=True, slots=True)
class Slerp:
    """Merged task vector = sum over m of weights[m] * delta_m; shape (M,), float64.

    angles: degrees; Paper: Omega of each of the M - 1 slerps; Symmetric: of each task vector to their common direction;
    NaN where a zero vector is involved. degenerate: each kind that occurred, in the order of the enum.
    """

    weights: Float64
    angles: tuple[float, ...]
    degenerate: tuple[Degenerate, ...]


def slerp(gram_MM: Float64, order: SlerpOrder) -> Slerp:
    """Coefficients for M >= 1 task vectors with lambda = 1 / M, from their Gram matrix (float64, M x M)."""
    _check_finite(gram_MM)
    return _paper(gram_MM) if order is SlerpOrder.PAPER else _symmetric(gram_MM)


def slerp_between(gram_22: Float64, slerp_weight: float) -> Slerp:
    """Coefficients for two vectors at any lambda in [0, 1], where 0 is the first of them; at 1/2 those of `slerp`, to the bit."""
    _check_finite(gram_22)
    norms = math.sqrt(gram_22[0, 0]), math.sqrt(gram_22[1, 1])
    pair = _pair(norms, float(gram_22[0, 1]), slerp_weight)
    return Slerp(np.array([pair.keep, pair.add]), (pair.angle,), pair.degenerate)


def pair_weights(angle: float, slerp_weight: float) -> tuple[float, float]:
    """sin((1 - lambda) Omega) / sin(Omega) and sin(lambda Omega) / sin(Omega); LERP below PARALLEL_ANGLE.

    angle: Omega in radians, [0, pi). slerp_weight: lambda, [0, 1].
    """
    if angle < PARALLEL_ANGLE:
        return 1.0 - slerp_weight, slerp_weight
    return math.sin((1.0 - slerp_weight) * angle) / math.sin(angle), math.sin(slerp_weight * angle) / math.sin(angle)


def _paper(gram_MM: Float64) -> Slerp:
    """Slerp of the slerp of the first m - 1 with the m-th at lambda = 1 / m (appendix B.3). It depends on the order:
    orthonormal task vectors get (.612, .612, .500) for M = 3 and (.538, .538, .439, .364, .309) for M = 5.
    """
    num_members = len(gram_MM)
    weights_M = np.zeros(num_members)
    weights_M[0] = 1.0
    angles: list[float] = []
    met: set[Degenerate] = set()
    for m in range(1, num_members):
        so_far = math.sqrt(max(math.fsum((weights_M[:, None] * gram_MM * weights_M).flat), 0.0))
        norm = math.sqrt(gram_MM[m, m])
        pair = _pair((so_far, norm), math.fsum(weights_M * gram_MM[m]), 1.0 / (m + 1))
        angles.append(pair.angle)
        met.update(pair.degenerate)
        weights_M *= pair.keep
        weights_M[m] = pair.add
    return Slerp(weights_M, tuple(angles), _in_order(met))


class _Pair(NamedTuple):
    """Coefficients of the first and of the second vector; the angle in degrees; what stood in the way of plain SLERP."""

    keep: float
    add: float
    angle: float
    degenerate: tuple[Degenerate, ...]


def _pair(norms: tuple[float, float], inner_product: float, slerp_weight: float) -> _Pair:
    lerp = 1.0 - slerp_weight, slerp_weight
    if 0.0 in norms:
        return _Pair(*lerp, math.nan, (Degenerate.ZERO,))
    cosine = min(max(inner_product / norms[0] / norms[1], -1.0), 1.0)
    angle = math.acos(cosine)
    if 1.0 + cosine <= ANTIPARALLEL:
        return _Pair(*lerp, math.degrees(angle), (Degenerate.ANTIPARALLEL,))
    parallel = (Degenerate.PARALLEL,) if angle < PARALLEL_ANGLE else ()
    return _Pair(*pair_weights(angle, slerp_weight), math.degrees(angle), parallel)


def _symmetric(gram_MM: Float64) -> Slerp:
    """Sum of the task vectors over the length of the sum of their directions: permutation invariant.

        sum_m delta_m / | sum_m d_m |,   d_m = delta_m / |delta_m|

    For M = 2 it is the paper's formula at lambda = 1/2, whatever the norms: sin(Omega/2) / sin(Omega) = 1 / |d_1 + d_2|.
    Orthonormal task vectors get 1 / sqrt(M) each, parallel ones 1 / M (LERP), and equal norms are kept:
    |sum delta| = r |sum d|. (For equal norms it points to the extrinsic mean of the directions on the sphere.)
    Directions that cancel (|sum d|^2 at most M * ANTIPARALLEL; for M = 2 the bound of Paper) get LERP, 1 / M each.
    With Z zero vectors the others' result counts (M - Z) / M, as LERP with the zeros does for M = 2.
    """
    num_members = len(gram_MM)
    is_moving_M = np.diagonal(gram_MM) > 0
    num_moving = int(is_moving_M.sum())
    weights_M = np.full(num_members, 1.0 / num_members)
    angles_M = np.full(num_members, math.nan)
    met: set[Degenerate] = {Degenerate.ZERO} if num_moving < num_members and num_members > 1 else set()
    if num_moving:
        cosines_MM = cosines(gram_MM[np.ix_(is_moving_M, is_moving_M)])
        length_squared = math.fsum(cosines_MM.flat)
        if length_squared <= num_moving * ANTIPARALLEL:
            met.add(Degenerate.ANTIPARALLEL)
        else:
            length = math.sqrt(length_squared)
            weights_M[is_moving_M] = num_moving / num_members / length
            to_common = np.array([math.fsum(row) for row in cosines_MM]) / length
            angles_M[is_moving_M] = np.degrees(np.arccos(np.clip(to_common, -1.0, 1.0)))
            parallel = num_moving > 1 and bool((cosines_MM > math.cos(PARALLEL_ANGLE)).all())
            met.update({Degenerate.PARALLEL} if parallel else ())
    angles = tuple(float(angle) for angle in angles_M) if num_members > 1 else ()
    return Slerp(weights_M, angles, _in_order(met))


def _check_finite(gram_MM: Float64) -> None:
    if not np.isfinite(gram_MM).all():
        raise NumericsError(
            "the Gram matrix of the task vectors is not finite", hint="a checkpoint holds NaN or Inf, or overflowed"
        )


def _in_order(met: set[Degenerate]) -> tuple[Degenerate, ...]:
    return tuple(kind for kind in Degenerate if kind in met)
