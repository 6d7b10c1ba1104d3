"""The kernels of a merge on all cores: block by block, each block's result the same whichever thread computes it."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt

from warpctl.merging import kernels
from warpctl.merging.kernels import Inputs, Rounded
from warpctl.merging.product import Product
from warpctl.merging.task_vector import BLOCK_ELEMENTS
from warpctl.storage.parallel import cores_of_this_process

MAX_THREADS = 8
"""More do not help: memory and the store are slower than that."""
SHARE_ELEMENTS = 8 * BLOCK_ELEMENTS
"""Worked on by a thread at a time, which holds 1 MiB for each product as float32."""

_T = TypeVar("_T")
Float64 = npt.NDArray[np.float64]
Stored = npt.NDArray[Any]
Write = Callable[[int, Stored], None]
"""Gets the next values of one of the products, by its number. They change after."""

_NO_FLOAT32, _NO_BFLOAT16 = np.empty(0, np.float32), np.empty(0, np.uint16)
_HELD_AS = {"F32": np.float32, "BF16": np.uint16}


class MergeArithmetic:
    """Inner products of inputs, and their combination into `products`. Use it as a context manager: it owns threads and buffers.

    Each has threads of its own, so that one thread may take inner products while another one combines.
    """

    def __init__(self, products: Sequence[Product], *, num_threads: int | None = None) -> None:
        num_threads = num_threads or min(cores_of_this_process(), MAX_THREADS)
        self._products = tuple(products)
        self._is_stopped = False
        self._held = [
            {product: np.empty(SHARE_ELEMENTS, _HELD_AS[product.dtype]) for product in products}
            for _ in range(num_threads)
        ]
        self._adding = ThreadPoolExecutor(num_threads, thread_name_prefix="products")
        self._combining = ThreadPoolExecutor(num_threads, thread_name_prefix="combine")

    def inner_products(self, stored_TK: Sequence[Sequence[Stored]]) -> list[Float64]:
        """Inner products of the blocks of each of T tensors, in order: (B, K, K). stored_TK: (N,) each, in stored types."""
        shares: deque[tuple[Inputs, slice, Float64]] = deque()
        found = []
        for stored_K in stored_TK:
            inputs = Inputs(stored_K)
            num_blocks = max(-(-inputs.size // BLOCK_ELEMENTS), 1)
            products_BKK = np.empty((num_blocks, len(stored_K), len(stored_K)))
            found.append(products_BKK)
            for share in _shares(inputs.size):
                first = share.start // BLOCK_ELEMENTS
                shares.append((inputs, share, products_BKK[first : first + SHARE_ELEMENTS // BLOCK_ELEMENTS]))

        def work(_held: object) -> None:
            for inputs, share, products_BKK in self._taken_from(shares):
                kernels.inner_products(inputs, share, products_BKK)

        self._on_all(self._adding, work, shares)
        return found

    def combine(self, stored_K: Sequence[Stored], factors_K: Float64, write: Write, *, liti_rate: float) -> None:
        """Write the products: of each one piece at a time, in order, by whichever thread has computed it.

        `factors_K`: of the inputs in the merged policy, the init first (coefficients.py).
        FloatingPointError when a value is beyond the range of its type. No thread is at work any more when this returns, or
        raises what a kernel or `write` has raised.
        """
        inputs = Inputs(stored_K)
        shares = deque(enumerate(_shares(inputs.size)))
        turns = [_Turns() for _ in self._products]

        def work(held: Mapping[Product, Stored]) -> None:
            try:
                for number, share in self._taken_from(shares):
                    place = slice(0, share.stop - share.start)
                    kernels.combine(
                        inputs,
                        factors_K,
                        share,
                        liti_rate=liti_rate,
                        merged=_rounded(held, "merged", place),
                        next_init=_rounded(held, "next-init", place),
                    )
                    for which, product in enumerate(self._products):
                        with turns[which].turn(number):
                            write(which, held[product][place])
            except _OtherFailedError:
                pass  # which says why
            except BaseException:
                for each in turns:
                    each.fail()
                raise

        self._on_all(self._combining, work, shares)

    def _on_all(
        self, threads: ThreadPoolExecutor, work: Callable[[Mapping[Product, Stored]], None], shares: deque[Any]
    ) -> None:
        """Run `work` in as many threads as there is work for. Left by an error, or interrupted, it gives out no more shares."""
        if len(shares) == 1:
            work(self._held[0])
            return
        futures: list[Future[None]] = []
        try:
            for held in self._held[: len(shares)]:
                futures.append(threads.submit(work, held))  # noqa: PERF401 - after an error the list has those that run
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            shares.clear()
            wait(futures)
        for future in futures:
            future.result()

    def _taken_from(self, shares: deque[_T]) -> Iterator[_T]:
        """Until there are none; several threads may take from the same ones."""
        with contextlib.suppress(IndexError):
            while not self._is_stopped:
                yield shares.popleft()

    def stop(self) -> None:
        """End what another thread waits for: its result is wrong, and must not be wanted any more."""
        self._is_stopped = True

    def __enter__(self) -> Self:
        kernels.prepare()  # once, and not by each thread: a compiler that fails has failed for all
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._adding.shutdown(cancel_futures=True)
        self._combining.shutdown(cancel_futures=True)


class _OtherFailedError(Exception):
    """The turn of a thread never comes, because one before it has failed."""


class _Turns:
    """Threads come to their turn in the order of their numbers, from 0 on."""

    def __init__(self) -> None:
        self._next = 0
        self._has_failed = False
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """The body runs when those of all numbers before it have ended. _OtherFailedError when one never will."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_failed or self._next == number)
            if self._has_failed:
                raise _OtherFailedError
        yield
        with self._changed:
            self._next += 1
            self._changed.notify_all()

    def fail(self) -> None:
        with self._changed:
            self._has_failed = True
            self._changed.notify_all()


def _shares(num_elements: int) -> Iterator[slice]:
    """Consecutive slices of at most SHARE_ELEMENTS; no elements are one empty slice."""
    for start in range(0, max(num_elements, 1), SHARE_ELEMENTS):
        yield slice(start, min(start + SHARE_ELEMENTS, num_elements))


def _rounded(held: Mapping[Product, Stored], what: Literal["merged", "next-init"], place: slice) -> Rounded:
    return Rounded(
        held.get(Product(what, "F32"), _NO_FLOAT32)[place], held.get(Product(what, "BF16"), _NO_BFLOAT16)[place]
    )
