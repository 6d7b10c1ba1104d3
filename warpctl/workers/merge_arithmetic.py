"""The kernels of a merge on all cores: block by block, each block's result the same whichever thread computes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from warpctl.merging import kernels
from warpctl.merging.kernels import Inputs, Rounded
from warpctl.merging.product import Product
from warpctl.merging.task_vector import BLOCK_ELEMENTS
from warpctl.storage.parallel import cores_of_this_process, finish_all

MAX_THREADS = 8
"""More do not help: memory and the store are slower than that."""
SHARE_ELEMENTS = 16 * BLOCK_ELEMENTS
"""Given to a thread at a time."""
BATCH_ELEMENTS = 2 * SHARE_ELEMENTS
"""Combined before they are handed on; two batches of each product are held, 4 MiB each as float32."""

Float64 = npt.NDArray[np.float64]
Stored = npt.NDArray[Any]

_NO_FLOAT32, _NO_BFLOAT16 = np.empty(0, np.float32), np.empty(0, np.uint16)
_HELD_AS = {"F32": np.float32, "BF16": np.uint16}


class MergeArithmetic:
    """Inner products of inputs, and their combination into `products`. Use it as a context manager: it owns threads and buffers."""

    def __init__(self, products: Sequence[Product], *, num_threads: int | None = None) -> None:
        num_threads = num_threads or min(cores_of_this_process(), MAX_THREADS)
        self._products = tuple(products)
        # One batch is written by the threads while the caller has the other.
        self._batches = [
            {product: np.empty(BATCH_ELEMENTS, _HELD_AS[product.dtype]) for product in products} for _ in range(2)
        ]
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="merge")

    def inner_products(self, stored_K: Sequence[Stored]) -> Float64:
        """Inner products of each block, in order: (B, K, K). stored_K: (N,) each, in stored types."""
        inputs = Inputs(stored_K)
        num_blocks = max(-(-inputs.size // BLOCK_ELEMENTS), 1)
        products_BKK = np.empty((num_blocks, len(stored_K), len(stored_K)))

        def work(share: slice) -> None:
            first, last = share.start // BLOCK_ELEMENTS, -(-share.stop // BLOCK_ELEMENTS)
            kernels.inner_products(inputs, share, products_BKK[first : max(last, first + 1)])

        finish_all(self._start(work, slice(0, inputs.size)))
        return products_BKK

    def combine(
        self, stored_K: Sequence[Stored], slerp_weights_M: Float64, *, liti_rate: float
    ) -> Iterator[list[Stored]]:
        """The products in their order, in batches, each valid until the next one is asked for.

        The threads go on with the next batch meanwhile. FloatingPointError when a value is beyond the range of its type.
        """
        inputs = Inputs(stored_K)

        def start(number: int) -> list[Future[None]]:
            def work(share: slice) -> None:
                place = slice(share.start - batch.start, share.stop - batch.start)
                kernels.combine(
                    inputs,
                    slerp_weights_M,
                    share,
                    liti_rate=liti_rate,
                    merged=_rounded(held, "merged", place),
                    next_init=_rounded(held, "next-init", place),
                )

            batch, held = batches[number], self._batches[number % 2]
            return self._start(work, batch)

        batches = list(_slices(slice(0, inputs.size), BATCH_ELEMENTS))
        futures = start(0)
        try:
            for number, batch in enumerate(batches):
                finish_all(futures)
                futures = start(number + 1) if number + 1 < len(batches) else []
                held = self._batches[number % 2]
                yield [held[product][: batch.stop - batch.start] for product in self._products]
        finally:
            wait(futures)  # they read what the caller may free, and write what the next tensor will use

    def _start(self, work: Callable[[slice], None], elements: slice) -> list[Future[None]]:
        return [self._threads.submit(work, share) for share in _slices(elements, SHARE_ELEMENTS)]

    def __enter__(self) -> Self:
        kernels.prepare()  # once, and not by each thread: a compiler that fails has failed for all
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)


def _slices(elements: slice, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` elements; no elements are one empty slice."""
    for start in range(elements.start, max(elements.stop, elements.start + 1), size):
        yield slice(start, min(start + size, elements.stop))


def _rounded(held: Mapping[Product, Stored], what: Literal["merged", "next-init"], place: slice) -> Rounded:
    return Rounded(
        held.get(Product(what, "F32"), _NO_FLOAT32)[place], held.get(Product(what, "BF16"), _NO_BFLOAT16)[place]
    )
