"""The weighted average of checkpoints, tensor by tensor: no angle, so every weight is read once, however large a group is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from warpctl.merging.coefficients import factors_of_policies
from warpctl.workers.merge_arithmetic import MergeArithmetic
from warpctl.workers.merge_reading import GroupPlan, Reader, loads_of, weights_bytes
from warpctl.workers.merge_sources import Sources
from warpctl.workers.merge_weights import BeyondRangeError, Output, types_of, writing


def merge_linear(
    sources: Sources,
    plans: Sequence[GroupPlan],
    output: Output,
    *,
    weights: Sequence[float],
    on_group: Callable[[int, int], None],
    memory_bytes: int,
) -> None:
    """(1 - sum of weights) first + sum over the others of weight x other, in float64, rounded once.

    `weights` has one for each input but the first. `plans` read nothing for inner products. As merge_weights, `on_group`
    may raise, and NumericsError says which input holds what is not finite.
    """
    factors_K = factors_of_policies(weights)
    with (
        MergeArithmetic(output.wanted) as arithmetic,
        Reader(sources, loads_of(plans), max_bytes=weights_bytes(memory_bytes, len(sources.all))) as reader,
    ):
        for number, plan in enumerate(plans):
            for load in plan.combination:
                on_group(number, len(plans))
                with reader.take(load) as stored:
                    for name in sorted(stored):
                        try:
                            arithmetic.combine(stored[name], factors_K, writing(output, name), liti_rate=1.0)
                        except FloatingPointError as error:
                            sources.refuse_not_finite(name)
                            raise BeyondRangeError(
                                f"averaging tensor {name} gives values beyond {types_of(output.wanted)}",
                                hint="the inputs are close to its limit of 3.4e38",
                            ) from error
