"""What a merge saw: norms, cosines, coefficients of each group, and a summary of them all. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from warpctl.merging.groups import Group
from warpctl.merging.slerp import Degenerate, Slerp
from warpctl.merging.task_vector import cosines, task_gram, weight_gram

Float64 = npt.NDArray[np.float64]
Number = float | None
"""A figure in JSON, which has no NaN: null where a zero vector leaves it undefined."""


@dataclass(frozen=True, slots=True)
class GroupDiagnostics:
    """One group: M members, in the order of the merge. Norms are Euclidean, angles are in degrees."""

    group: str
    tensors: tuple[str, ...]
    weights: tuple[float, ...]
    """SLERP coefficient of each task vector."""
    angles: tuple[Number, ...]
    """As in slerp.Slerp.angles."""
    degenerate: tuple[str, ...]
    """Zero, Parallel, Antiparallel: where LERP stood in for SLERP; usually empty."""
    init_norm: float
    norms: tuple[float, ...]
    """Norm of each task vector."""
    merged_norm: float
    """Norm of the merged task vector."""
    cosines: tuple[tuple[Number, ...], ...]
    """Between task vectors (paper: about 0), M x M."""
    weight_cosines: tuple[tuple[Number, ...], ...]
    """Between the members' full weights (paper: above 0.999), M x M."""
    slerp_weight: Number = None
    """lambda, of a recipe; None: 1 / M, which is not written down."""

    def to_json(self) -> dict[str, Any]:
        """For merge.json, in camelCase as everywhere outside Python."""
        fields = asdict(self)
        if self.slerp_weight is None:
            del fields["slerp_weight"]
        return {_camel(name): value for name, value in fields.items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of to_json, exact."""
        names = [name for name in cls.__dataclass_fields__ if _camel(name) in data or name != "slerp_weight"]
        return cls(**{name: _tuples(data[_camel(name)]) for name in names})


def diagnose(
    group: Group, products_KK: Float64, merged: Slerp, *, slerp_weight: float | None = None
) -> GroupDiagnostics:
    """Diagnostics from the inner products of init and task vectors (task_vector.products) and the coefficients."""
    gram_MM = task_gram(products_KK)
    squared = math.fsum((merged.weights[:, None] * gram_MM * merged.weights).flat)
    return GroupDiagnostics(
        group=group.name,
        tensors=group.tensors,
        weights=tuple(merged.weights.tolist()),
        angles=tuple(_number(angle) for angle in merged.angles),
        degenerate=tuple(str(kind) for kind in merged.degenerate),
        init_norm=math.sqrt(products_KK[0, 0]),
        norms=tuple(np.sqrt(np.diagonal(gram_MM)).tolist()),
        merged_norm=math.sqrt(max(squared, 0.0)),
        cosines=_rows(cosines(gram_MM)),
        weight_cosines=_rows(cosines(weight_gram(products_KK))),
        slerp_weight=slerp_weight,
    )


def summarise(groups: Sequence[GroupDiagnostics]) -> dict[str, Any]:
    """A few figures over all groups, for the outcome of the stage.

    `cosine` is that of whole task vectors (all groups together), averaged over pairs of members; minima and maxima are
    over groups and pairs; `normRatio` is the largest over the smallest norm of a group's task vectors.
    """
    pairs = [(a, b) for b in range(len(groups[0].norms)) for a in range(b)]
    task = [cosine for group in groups for a, b in pairs if (cosine := group.cosines[a][b]) is not None]
    full = [cosine for group in groups for a, b in pairs if (cosine := group.weight_cosines[a][b]) is not None]
    ratios = [max(group.norms) / min(group.norms) for group in groups if min(group.norms) > 0]
    whole = [cosine for a, b in pairs if (cosine := _whole_cosine(groups, a, b)) is not None]
    return {
        "groups": len(groups),
        "cosine": math.fsum(whole) / len(whole) if whole else None,
        "minCosine": min(task, default=None),
        "maxCosine": max(task, default=None),
        "minWeightCosine": min(full, default=None),
        "maxNormRatio": max(ratios, default=None),
        "norms": [_whole_norm([group.norms[m] for group in groups]) for m in range(len(groups[0].norms))],
        "mergedNorm": _whole_norm([group.merged_norm for group in groups]),
        "degenerate": {
            kind.value: count
            for kind in Degenerate
            if (count := sum(kind.value in group.degenerate for group in groups))
        },
    }


def _whole_norm(norms: Sequence[float]) -> float:
    return math.sqrt(math.fsum(norm * norm for norm in norms))


def _whole_cosine(groups: Sequence[GroupDiagnostics], a: int, b: int) -> Number:
    norms = [_whole_norm([group.norms[m] for group in groups]) for m in (a, b)]
    if not all(norms):
        return None
    inner = math.fsum((group.cosines[a][b] or 0.0) * group.norms[a] * group.norms[b] for group in groups)
    return inner / norms[0] / norms[1]


def _number(value: float) -> Number:
    return float(value) if math.isfinite(value) else None


def _rows(matrix_MM: Float64) -> tuple[tuple[Number, ...], ...]:
    return tuple(tuple(_number(value) for value in row) for row in matrix_MM.tolist())


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
