"""The merge itself, whatever it reads from and writes to: group by group, inner products, coefficients, combination."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from warpctl.errors import NumericsError
from warpctl.merging.diagnostics import GroupDiagnostics, diagnose
from warpctl.merging.groups import Group, split_into_groups
from warpctl.merging.slerp import slerp
from warpctl.merging.task_vector import Float64, add_up, task_gram
from warpctl.spec.stage_input import MergeTask
from warpctl.workers.merge_arithmetic import MergeArithmetic, Product
from warpctl.workers.merge_sources import GroupWeights, Sources

MAX_HELD_BYTES = 4 * 1024**3

Stored = npt.NDArray[Any]


class Output(Protocol):
    """Where merged policy and next init go."""

    wanted: tuple[Product, ...]
    """What `append` gets, in this order."""

    def needs(self, tensor: str) -> bool:
        """Whether this tensor is still to be written."""
        ...

    def finished(self, group: Group) -> GroupDiagnostics | None:
        """Diagnostics of a group of which nothing is left to write, None for another."""
        ...

    def append(self, tensor: str, values: Sequence[Stored]) -> None:
        """The next values of a tensor, an array for each of `wanted`, not to be kept; tensors come in sorted order."""
        ...

    def save_state(self, diagnostics: Sequence[GroupDiagnostics]) -> None:
        """Called after each group."""
        ...


def merge_weights(
    sources: Sources,
    task: MergeTask,
    output: Output,
    *,
    on_group: Callable[[int, int], None],
    max_held_bytes: int = MAX_HELD_BYTES,
) -> list[GroupDiagnostics]:
    """Merge all weights of `sources` into `output`. `on_group(number, count)` is called before each group, and may raise."""
    groups = split_into_groups((spec.name for spec in sources.specs), task.granularity)
    diagnostics: list[GroupDiagnostics] = []
    with MergeArithmetic(output.wanted) as arithmetic:
        for number, group in enumerate(groups):
            on_group(number, len(groups))
            known = output.finished(group)
            if known is None:
                weights = sources.group(group.tensors, max_held_bytes=max_held_bytes)
                known = _merge_group(weights, group, task, output, arithmetic)
            diagnostics.append(known)
            output.save_state(diagnostics)
    return diagnostics


def _merge_group(
    weights: GroupWeights, group: Group, task: MergeTask, output: Output, arithmetic: MergeArithmetic
) -> GroupDiagnostics:
    """Coefficients from the inner products of the group, then its merged policy and next init, part by part."""
    products_KK = _inner_products(weights, group, arithmetic)
    coefficients = slerp(task_gram(products_KK), task.order)
    liti_rate = float(task.liti_rate)
    for name in filter(output.needs, group.tensors):
        for stored_K in weights.windows(name):
            try:
                for values in arithmetic.combine(stored_K, coefficients.weights, liti_rate=liti_rate):
                    output.append(name, values)
            except FloatingPointError as error:
                raise NumericsError(
                    f"merging tensor {name} gives values beyond {_types(output.wanted)}",
                    hint="the inputs are close to its limit of 3.4e38",
                ) from error
    return diagnose(group, products_KK, coefficients)


def _inner_products(weights: GroupWeights, group: Group, arithmetic: MergeArithmetic) -> Float64:
    """Of init and task vectors over all tensors of the group, (K, K); NumericsError names the first NaN or Inf."""
    parts = []
    for name in group.tensors:
        of_tensor = [arithmetic.inner_products(stored_K) for stored_K in weights.windows(name)]
        if not all(np.isfinite(part_BKK).all() for part_BKK in of_tensor):
            weights.refuse_not_finite(name)
        parts += of_tensor
    return add_up(np.concatenate(parts))


def _types(wanted: Sequence[Product]) -> str:
    return "bfloat16" if any(product.dtype == "BF16" for product in wanted) else "float32"
