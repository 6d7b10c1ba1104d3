"""How policies are merged: what a spec, a merge stage and `warpctl merge` choose. Plain Python: pydantic has no part in it."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class MergeMethod:
    """SLERP of task vectors, then LITI toward the init."""

    granularity: Granularity = Granularity.LAYER
    order: SlerpOrder = SlerpOrder.PAPER
    liti_rate: Decimal
