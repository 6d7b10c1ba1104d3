"""The merge itself, whatever it reads from and writes to: group by group, inner products, coefficients, combination."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from warpctl.errors import NumericsError
from warpctl.merging.coefficients import coefficients_of
from warpctl.merging.diagnostics import GroupDiagnostics
from warpctl.merging.product import Product
from warpctl.merging.task_vector import Float64, add_up
from warpctl.spec.merge_method import MergeMethod
from warpctl.workers.merge_arithmetic import MergeArithmetic, Write
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

    def append(self, which: int, tensor: str, values: Stored) -> None:
        """The next values of a tensor, for one of `wanted`, not to be kept; tensors come in sorted order.

        Called by several threads, of which each has another one of `wanted`.
        """
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
        _Merging(sources, reader, arithmetic, method, output) as merging,
    ):
        for number, plan in enumerate(needed, len(plans) - len(needed)):

            def look_around(number: int = number) -> None:
                on_group(number, len(plans))

            merging.group(plan, diagnostics, look_around)
    return diagnostics


class _Merging:
    """One merge under way. Use it as a context manager: it owns the thread that works ahead."""

    def __init__(
        self, sources: Sources, reader: Reader, arithmetic: MergeArithmetic, method: MergeMethod, output: Output
    ) -> None:
        self._sources = sources
        self._reader = reader
        self._arithmetic = arithmetic
        self._method = method
        self._output = output
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._ahead: Future[dict[str, Float64]] | None = None
        """Inner products of the load that comes next, where its weights fit beside those that are being combined."""

    def group(self, plan: GroupPlan, diagnostics: list[GroupDiagnostics], look_around: Callable[[], None]) -> None:
        """Coefficients from the inner products of the group, then its merged policy and next init, part by part.

        While its last part is written, the inner products of the next group begin. `look_around` is called before each
        part, and a state saved after it: a group may be a whole model.
        """
        parts = []
        for load in plan.products:
            look_around()
            with self._reader.take(load) as weights:
                parts.append(self._inner_products(weights))
        for load in plan.combination:
            look_around()
            with self._reader.take(load) as weights:
                if not plan.is_read_twice:
                    parts.append(self._inner_products(weights))
                if load is plan.combination[0]:
                    found = coefficients_of(plan.group, add_up(np.concatenate(parts)), self._method)
                    diagnostics.append(found.diagnostics)
                if load is plan.combination[-1]:
                    self._begin_next()
                self._combine(weights, found.factors_K)
            self._output.save_state(diagnostics)

    def _begin_next(self) -> None:
        coming = self._reader.coming()
        if coming is not None:
            self._ahead = self._thread.submit(lambda: self._products_of(coming.result()))

    def _inner_products(self, weights: Mapping[str, Sequence[Stored]]) -> Float64:
        """Of init and task vectors, for each block: (B, K, K); NumericsError names the first NaN or Inf."""
        begun, self._ahead = self._ahead, None
        products = begun.result() if begun is not None else self._products_of(weights)
        for name, products_BKK in products.items():
            if not np.isfinite(products_BKK).all():
                self._sources.refuse_not_finite(name)
        return np.concatenate(list(products.values()))

    def _products_of(self, weights: Mapping[str, Sequence[Stored]]) -> dict[str, Float64]:
        return dict(zip(weights, self._arithmetic.inner_products(list(weights.values())), strict=True))

    def _combine(self, weights: Mapping[str, Sequence[Stored]], factors_K: Float64) -> None:
        liti_rate = float(self._method.liti_rate)
        for name in filter(self._output.needs, sorted(weights)):
            try:
                self._arithmetic.combine(weights[name], factors_K, writing(self._output, name), liti_rate=liti_rate)
            except FloatingPointError as error:
                raise BeyondRangeError(
                    f"merging tensor {name} gives values beyond {types_of(self._output.wanted)}",
                    hint="the inputs are close to its limit of 3.4e38, or the LITI rate is far beyond 1",
                ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._arithmetic.stop()
        self._thread.shutdown(cancel_futures=True)


def writing(output: Output, tensor: str) -> Write:
    """Appends to this tensor."""
    return lambda which, values: output.append(which, tensor, values)


def types_of(wanted: Sequence[Product]) -> str:
    """The narrowest, as people call it."""
    return "bfloat16" if any(product.dtype == "BF16" for product in wanted) else "float32"
