"""The merge itself, whatever it reads from and writes to: group by group, inner products, coefficients, combination."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from warpctl.errors import NumericsError
from warpctl.merging.diagnostics import GroupDiagnostics, diagnose
from warpctl.merging.product import Product
from warpctl.merging.slerp import Slerp, slerp
from warpctl.merging.task_vector import Float64, add_up, task_gram
from warpctl.spec.merge_method import MergeMethod
from warpctl.workers.merge_arithmetic import MergeArithmetic
from warpctl.workers.merge_reading import DEFAULT_MEMORY_BYTES, GroupPlan, Reader, loads_of, plan_groups, weights_bytes
from warpctl.workers.merge_sources import Sources

Stored = npt.NDArray[Any]


class BeyondRangeError(NumericsError):
    """The inputs are finite and their merge is not."""


class Output(Protocol):
    """Where merged policy and next init go."""

    wanted: tuple[Product, ...]
    """What `append` gets, in this order."""

    def needs(self, tensor: str) -> bool:
        """Whether this tensor is still to be written."""
        ...

    def append(self, tensor: str, values: Sequence[Stored]) -> None:
        """The next values of a tensor, an array for each of `wanted`, not to be kept; tensors come in sorted order."""
        ...

    def save_state(self, diagnostics: Sequence[GroupDiagnostics]) -> None:
        """Called after each part of a group, with the diagnostics so far, that of this group included."""
        ...


def merge_weights(
    sources: Sources,
    method: MergeMethod,
    output: Output,
    *,
    on_group: Callable[[int, int], None],
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
) -> list[GroupDiagnostics]:
    """Merge what `output` needs of `sources`: diagnostics of the groups that have a part in it.

    `on_group(number, count)` is called before each part of group `number`, and may raise.
    `memory_bytes`: of the whole process, see weights_bytes.
    """
    plans = plan_groups(sources, method, memory_bytes=memory_bytes, needs=output.needs)
    needed = [plan for plan in plans if any(map(output.needs, plan.group.tensors))]
    diagnostics: list[GroupDiagnostics] = []
    with (
        MergeArithmetic(output.wanted) as arithmetic,
        Reader(sources, loads_of(needed), max_bytes=weights_bytes(memory_bytes, len(sources.all))) as reader,
    ):
        merging = _Merging(sources, reader, arithmetic, method, output)
        for number, plan in enumerate(needed, len(plans) - len(needed)):

            def look_around(number: int = number) -> None:
                on_group(number, len(plans))

            merging.group(plan, diagnostics, look_around)
    return diagnostics


@dataclass(frozen=True)
class _Merging:
    sources: Sources
    reader: Reader
    arithmetic: MergeArithmetic
    method: MergeMethod
    output: Output

    def group(self, plan: GroupPlan, diagnostics: list[GroupDiagnostics], look_around: Callable[[], None]) -> None:
        """Coefficients from the inner products of the group, then its merged policy and next init, part by part.

        `look_around` is called before each part, and a state saved after it: a group may be a whole model.
        """
        if plan.is_read_twice:
            parts = []
            for load in plan.products:
                look_around()
                with self.reader.take(load) as weights:
                    parts.append(self._inner_products(weights))
            products_KK = add_up(np.concatenate(parts))
            coefficients = slerp(task_gram(products_KK), self.method.order)
            diagnostics.append(diagnose(plan.group, products_KK, coefficients))
            for load in plan.combination:
                look_around()
                with self.reader.take(load) as weights:
                    self._combine(weights, coefficients)
                self.output.save_state(diagnostics)
        else:
            look_around()
            with self.reader.take(plan.combination[0]) as weights:
                products_KK = add_up(self._inner_products(weights))
                coefficients = slerp(task_gram(products_KK), self.method.order)
                diagnostics.append(diagnose(plan.group, products_KK, coefficients))
                self._combine(weights, coefficients)
            self.output.save_state(diagnostics)

    def _inner_products(self, weights: Mapping[str, Sequence[Stored]]) -> Float64:
        """Of init and task vectors, for each block: (B, K, K); NumericsError names the first NaN or Inf."""
        parts = []
        for name, stored_K in weights.items():
            products_BKK = self.arithmetic.inner_products(stored_K)
            if not np.isfinite(products_BKK).all():
                self.sources.refuse_not_finite(name)
            parts.append(products_BKK)
        return np.concatenate(parts)

    def _combine(self, weights: Mapping[str, Sequence[Stored]], coefficients: Slerp) -> None:
        liti_rate = float(self.method.liti_rate)
        for name in filter(self.output.needs, sorted(weights)):
            try:
                for values in self.arithmetic.combine(weights[name], coefficients.weights, liti_rate=liti_rate):
                    self.output.append(name, values)
            except FloatingPointError as error:
                raise BeyondRangeError(
                    f"merging tensor {name} gives values beyond {types_of(self.output.wanted)}",
                    hint="the inputs are close to its limit of 3.4e38, or the LITI rate is far beyond 1",
                ) from error


def types_of(wanted: Sequence[Product]) -> str:
    """The narrowest, as people call it."""
    return "bfloat16" if any(product.dtype == "BF16" for product in wanted) else "float32"
