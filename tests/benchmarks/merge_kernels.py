"""What the merge's arithmetic costs: python -m tests.benchmarks.merge_kernels [ELEMENTS]. cpu-s for 1e9 elements, one thread.

Our kernels beside plain numpy and plain torch that compute the same (float64, bfloat16 inputs, M = 2). The best of a few rounds
that take turns: a machine that does something else meanwhile only makes a figure worse.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from warpctl.merging.task_vector import BLOCK_ELEMENTS, add_up
from warpctl.storage.bfloat16 import bfloat16_to_float32, float32_to_bfloat16
from warpctl.workers.merge_arithmetic import MergeArithmetic, Product

ELEMENTS = 1 << 24
ROUNDS = 5
LITI_RATE = 0.3
FACTORS = np.array([-0.41, 0.7, 0.71])
MERGED, NEXT_INIT, NEXT_INIT_BF16 = Product("merged", "F32"), Product("next-init", "F32"), Product("next-init", "BF16")

Stored = npt.NDArray[Any]


def stored_as(dtype: str, num_elements: int) -> list[Stored]:
    """Init and two members."""
    rng = np.random.default_rng(0)
    init = rng.standard_normal(num_elements, np.float32)
    rows = [init, *(init + np.float32(0.01) * rng.standard_normal(num_elements, np.float32) for _ in range(2))]
    return [
        float32_to_bfloat16(row) if dtype == "BF16" else row.astype({"F32": "f4", "F16": "f2"}[dtype]) for row in rows
    ]


def of_kernels(stored_K: Sequence[Stored], products: Sequence[Product] = ()) -> None:
    """Inner products, or the combination into `products`."""
    with MergeArithmetic(products, num_threads=1) as arithmetic:
        if not products:
            add_up(arithmetic.inner_products([stored_K])[0])
            return
        arithmetic.combine(stored_K, FACTORS, lambda _which, _values: None, liti_rate=LITI_RATE)


def inner_products_of_numpy(stored_K: Sequence[Stored]) -> None:
    for start in range(0, stored_K[0].size, BLOCK_ELEMENTS):
        rows = [bfloat16_to_float32(each[start : start + BLOCK_ELEMENTS]).astype(np.float64) for each in stored_K]
        vectors = np.array([rows[0], *(row - rows[0] for row in rows[1:])])
        vectors @ vectors.T


def combination_of_numpy(stored_K: Sequence[Stored]) -> None:
    for start in range(0, stored_K[0].size, BLOCK_ELEMENTS):
        init, *members = (
            bfloat16_to_float32(each[start : start + BLOCK_ELEMENTS]).astype(np.float64) for each in stored_K
        )
        merged = FACTORS[0] * init + FACTORS[1] * members[0] + FACTORS[2] * members[1]
        next_init = (1 - LITI_RATE) * init + LITI_RATE * merged
        merged.astype(np.float32), next_init.astype(np.float32)


def inner_products_of_torch(stored_K: Sequence[Stored]) -> None:
    inputs = [torch.from_numpy(each).view(torch.bfloat16) for each in stored_K]
    for start in range(0, inputs[0].numel(), BLOCK_ELEMENTS):
        rows = [each[start : start + BLOCK_ELEMENTS].double() for each in inputs]
        vectors = torch.stack([rows[0], *(row - rows[0] for row in rows[1:])])
        vectors @ vectors.T


def combination_of_torch(stored_K: Sequence[Stored]) -> None:
    inputs = [torch.from_numpy(each).view(torch.bfloat16) for each in stored_K]
    for start in range(0, inputs[0].numel(), BLOCK_ELEMENTS):
        init, *members = (each[start : start + BLOCK_ELEMENTS].double() for each in inputs)
        merged = float(FACTORS[0]) * init + float(FACTORS[1]) * members[0] + float(FACTORS[2]) * members[1]
        next_init = torch.lerp(init, merged, LITI_RATE)
        merged.float(), next_init.float()


def cpu_seconds(works: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    best = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            start = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - start)
    return best


def main(num_elements: int) -> None:
    torch.set_num_threads(1)
    stored = {dtype: stored_as(dtype, num_elements) for dtype in ("F32", "F16", "BF16")}
    bfloat16_K = stored["BF16"]
    works: dict[str, Callable[[], object]] = {
        **{
            f"inner_products_{dtype}": lambda stored_K=stored_K: of_kernels(stored_K)
            for dtype, stored_K in stored.items()
        },
        **{
            f"combine_{dtype}_to_both_F32": lambda stored_K=stored_K: of_kernels(stored_K, [MERGED, NEXT_INIT])
            for dtype, stored_K in stored.items()
        },
        "combine_BF16_to_merged_F32": lambda: of_kernels(bfloat16_K, [MERGED]),
        "combine_BF16_to_next_init_F32": lambda: of_kernels(bfloat16_K, [NEXT_INIT]),
        "combine_BF16_to_next_init_BF16": lambda: of_kernels(bfloat16_K, [NEXT_INIT_BF16]),
        "numpy_inner_products_BF16": lambda: inner_products_of_numpy(bfloat16_K),
        "numpy_combine_BF16_to_both_F32": lambda: combination_of_numpy(bfloat16_K),
        "torch_inner_products_BF16": lambda: inner_products_of_torch(bfloat16_K),
        "torch_combine_BF16_to_both_F32": lambda: combination_of_torch(bfloat16_K),
    }
    figures = {name: round(seconds / num_elements * 1e9, 2) for name, seconds in cpu_seconds(works).items()}
    for name, figure in figures.items():
        print(f"{name:34} {figure:6.2f}")
    print(json.dumps({"cpu_seconds_per_1e9_elements": figures}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ELEMENTS)
