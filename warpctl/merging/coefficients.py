"""From the inner products of a group's inputs to the factor of each of them, as the method of the merge has it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from warpctl.merging.diagnostics import GroupDiagnostics, diagnose
from warpctl.merging.groups import Group
from warpctl.merging.slerp import slerp, slerp_between
from warpctl.merging.task_vector import task_gram
from warpctl.spec.merge_method import MergeMethod, SlerpOf

SMALLEST_NORM = 1e-5
"""Of a policy beside its init, for SLERP of weights. What is shorter counts as zero: it is the difference of two inner products
that are 1e10 times larger, so that rounding would decide upon its direction."""

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The merge of a group is the sum of its inputs, init first, each times its factor: (K,), float64."""

    factors_K: Float64
    diagnostics: GroupDiagnostics


def coefficients_of(group: Group, products_KK: Float64, method: MergeMethod) -> Coefficients:
    """products_KK: inner products of init and task vectors (task_vector.inner_products)."""
    is_of_weights = method.slerp_of is SlerpOf.WEIGHTS
    if is_of_weights:
        products_KK = from_zero(products_KK)
    slerp_weight = method.slerp_weights[group.name] if method.slerp_weights else None
    gram_MM = task_gram(products_KK)
    merged = slerp(gram_MM, method.order) if slerp_weight is None else slerp_between(gram_MM, slerp_weight)
    factors_K = merged.weights if is_of_weights else factors_of_policies(merged.weights)
    return Coefficients(factors_K, diagnose(group, products_KK, merged, slerp_weight=slerp_weight))


def factors_of_policies(weights_M: Sequence[float] | Float64) -> Float64:
    """Factors of init and policies for weights of task vectors, or of policies in an average: the init has the rest of 1."""
    return np.array([1.0 - math.fsum(weights_M), *weights_M])


def from_zero(products_KK: Float64) -> Float64:
    """Inner products as if the init were a policy too, and all had started from zero: (K + 1, K + 1).

    With v the init and d a task vector <v, v + d> = <v, v> + <v, d>, and so on: the weights need not be read again.
    """
    with_init_K = np.concatenate([[0.0], products_KK[0, 1:]])
    gram_KK = products_KK[0, 0] + with_init_K[:, None] + with_init_K[None, :]
    gram_KK[1:, 1:] += products_KK[1:, 1:]
    is_short_K = np.diagonal(gram_KK) < SMALLEST_NORM**2 * products_KK[0, 0]
    gram_KK[is_short_K, :] = 0.0
    gram_KK[:, is_short_K] = 0.0
    return np.pad(gram_KK, ((1, 0), (1, 0)))
