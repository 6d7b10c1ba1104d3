"""The kernels of a merge on all cores: block by block, each block's result the same whichever thread computes it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from warpctl.merging import kernels
from warpctl.merging.task_vector import BLOCK_ELEMENTS, blocks

MAX_THREADS = 8
"""More do not help: memory and the store are slower than that."""
BATCH_ELEMENTS = 32 * BLOCK_ELEMENTS
"""Combined before they are handed on: 4 MiB of each of the two outputs."""

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Stored = npt.NDArray[Any]


class MergeArithmetic:
    """Inner products and combination of K inputs. Use it as a context manager: it owns threads and buffers."""

    def __init__(self, num_inputs: int, *, num_threads: int | None = None) -> None:
        num_threads = num_threads or min(len(os.sched_getaffinity(0)), MAX_THREADS)
        # One for each thread: a list gives and takes them without a lock.
        self._buffers = [np.empty(num_inputs * BLOCK_ELEMENTS) for _ in range(num_threads)]
        self._num_inputs = num_inputs
        self._merged_N, self._next_init_N = (np.empty(BATCH_ELEMENTS, np.float32) for _ in range(2))
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="merge")

    def products(self, stored_K: Sequence[Stored]) -> list[Float64]:
        """Inner products of each block, in order: (K, K) each. stored_K: (N,) each, in stored types."""
        return list(self._threads.map(lambda block: self._products(stored_K, block), blocks(stored_K[0].size)))

    def combine(
        self, stored_K: Sequence[Stored], slerp_weights_M: Float64, *, liti_rate: float
    ) -> Iterator[tuple[Float32, Float32]]:
        """Merged policy and next init, in batches that the next one overwrites; FloatingPointError beyond float32."""

        def work(block: slice) -> None:
            place = slice(block.start % BATCH_ELEMENTS, block.start % BATCH_ELEMENTS + block.stop - block.start)
            buffer = self._buffers.pop()
            try:
                kernels.combine(
                    self._widened(stored_K, block, buffer),
                    slerp_weights_M,
                    liti_rate=liti_rate,
                    merged_N=self._merged_N[place],
                    next_init_N=self._next_init_N[place],
                )
            finally:
                self._buffers.append(buffer)

        every = list(blocks(stored_K[0].size))
        per_batch = BATCH_ELEMENTS // BLOCK_ELEMENTS
        for first in range(0, len(every), per_batch):
            batch = every[first : first + per_batch]
            list(self._threads.map(work, batch))
            size = batch[-1].stop - batch[0].start
            yield self._merged_N[:size], self._next_init_N[:size]

    def _products(self, stored_K: Sequence[Stored], block: slice) -> Float64:
        buffer = self._buffers.pop()
        try:
            return kernels.products(self._widened(stored_K, block, buffer))
        finally:
            self._buffers.append(buffer)

    def _widened(self, stored_K: Sequence[Stored], block: slice, buffer: Float64) -> Float64:
        size = block.stop - block.start
        block_KN = buffer[: self._num_inputs * size].reshape(self._num_inputs, size)
        for row_N, stored_N in zip(block_KN, stored_K, strict=True):
            kernels.widen(stored_N[block], row_N)
        return block_KN

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
