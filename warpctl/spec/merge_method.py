"""How policies are merged: what a spec, a merge stage and `warpctl merge` choose. Plain Python: pydantic has no part in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum


class Granularity(StrEnum):
    """What one angle and its coefficients are for."""

    LAYER = "Layer"
    TENSOR = "Tensor"
    GLOBAL = "Global"


class SlerpOrder(StrEnum):
    """How more than two policies are combined."""

    PAPER = "Paper"
    SYMMETRIC = "Symmetric"


class SlerpOf(StrEnum):
    """Between which vectors an angle is."""

    TASK_VECTORS = "TaskVectors"
    WEIGHTS = "Weights"


@dataclass(frozen=True, kw_only=True)
class MergeMethod:
    """SLERP of task vectors, then LITI toward the init; of a recipe, SLERP of two task vectors or of two models, at any point."""

    granularity: Granularity = Granularity.LAYER
    order: SlerpOrder = SlerpOrder.PAPER
    liti_rate: Decimal
    slerp_of: SlerpOf = SlerpOf.TASK_VECTORS
    """Weights: of the init, at 0, and of the one policy, at 1; the init is then a model like any other."""
    slerp_weights: Mapping[str, float] = field(default_factory=dict)
    """lambda of each tensor, [0, 1], at granularity Tensor and of two vectors. Empty: 1 / M, as `order` says."""
