"""Reads weights in the order in which a merge needs them, ahead of need, into a bounded set of buffers.

A group whose slices of all inputs fit the memory is read once. A larger one (a big embedding) is read twice in row blocks:
for its inner products, then for the combination. What is read, in which order, is planned before the first byte.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from warpctl.merging.groups import Group, split_into_groups
from warpctl.merging.task_vector import BLOCK_ELEMENTS
from warpctl.spec.stage_input import MergeTask
from warpctl.workers.merge_sources import Sources

Stored = npt.NDArray[Any]
Buffer = npt.NDArray[np.uint8]
_ALIGNMENT = 64
LOADS_AHEAD = 3
"""However much memory there is: more than the next few loads is not wanted early."""

MIB = 1024**2
DEFAULT_MEMORY_BYTES = 1024 * MIB
OVERHEAD_BYTES = 256 * MIB
"""Python with numpy, numba and a store's library, and the batches that are being written."""
INPUT_BYTES = 32 * MIB
"""The chunks that each input keeps."""
LEAST_WEIGHTS_BYTES = 32 * MIB


@dataclass(frozen=True, slots=True)
class Load:
    """What lies in one buffer: whole tensors of one group (`elements` is None) or a row block of one tensor, of all inputs."""

    tensors: tuple[str, ...]
    elements: slice | None
    num_bytes: int


@dataclass(frozen=True)
class GroupPlan:
    """How one group is read: at once, or in row blocks, which `twice` says."""

    group: Group
    products: tuple[Load, ...]
    combination: tuple[Load, ...]

    @property
    def is_read_twice(self) -> bool:
        return bool(self.products)


def plan_groups(
    sources: Sources,
    task: MergeTask,
    *,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    needs: Callable[[str], bool] = lambda _: True,
) -> tuple[GroupPlan, ...]:
    """The groups in order, and how each is read; `needs` says which tensors are still to be written."""
    max_bytes = weights_bytes(memory_bytes, len(sources.all))
    groups = split_into_groups((spec.name for spec in sources.specs), task.granularity)
    return tuple(plan_group(sources, group, needs, max_bytes=max_bytes) for group in groups)


def weights_bytes(memory_bytes: int, num_inputs: int) -> int:
    """What of a process's memory its buffers of weights may take; a fifth is for what is not counted, such as uploads on their way."""
    return max(memory_bytes - memory_bytes // 5 - OVERHEAD_BYTES - num_inputs * INPUT_BYTES, LEAST_WEIGHTS_BYTES)


def plan_group(sources: Sources, group: Group, needs: Callable[[str], bool], *, max_bytes: int) -> GroupPlan:
    """One load if the group fits, else blocks of at most half of `max_bytes`, so that one can be read while one is worked on.

    Blocks begin at multiples of BLOCK_ELEMENTS: how a tensor is read changes no sum. Those of a tensor that is not needed
    in the output (an earlier attempt wrote it) are read for the inner products only.
    """
    whole = _whole(sources, group.tensors)
    if whole.num_bytes <= max_bytes:
        return GroupPlan(group, (), (whole,))
    products = tuple(block for name in group.tensors for block in _row_blocks(sources, name, max_bytes // 2))
    return GroupPlan(group, products, tuple(block for block in products if needs(block.tensors[0])))


def _whole(sources: Sources, tensors: tuple[str, ...]) -> Load:
    sizes = [source.checkpoint.flat_bytes(tensors) + _ALIGNMENT for source in sources.all]
    return Load(tensors, None, sum(sizes))


def _row_blocks(sources: Sources, name: str, max_bytes: int) -> Iterator[Load]:
    infos = [source.checkpoint.tensors[name] for source in sources.all]
    num_elements = infos[0].num_elements
    per_element = sum(info.num_bytes for info in infos) / max(num_elements, 1)
    size = max(int(max_bytes / max(per_element, 1)) // BLOCK_ELEMENTS, 1) * BLOCK_ELEMENTS
    for start in range(0, max(num_elements, 1), size):
        end = min(start + size, num_elements)
        yield Load((name,), slice(start, end), int((end - start) * per_element) + _ALIGNMENT * len(infos))


class Reader:
    """Performs loads, one ahead of the other. Use it as a context manager: it owns a thread and the buffers."""

    def __init__(self, sources: Sources, loads: Iterable[Load], *, max_bytes: int) -> None:
        self._sources = sources
        self._loads = iter(loads)
        self._next = next(self._loads, None)
        self._max_bytes = max_bytes
        self._free: list[Buffer] = []
        self._num_bytes = 0
        """Of all buffers, free or in use."""
        self._pending: deque[tuple[Load, Buffer, Future[dict[str, list[Stored]]]]] = deque()
        self._num_taken = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read")

    @contextlib.contextmanager
    def take(self, load: Load) -> Iterator[dict[str, list[Stored]]]:
        """The weights of the next load, which must be `load`: name -> flat, in stored types, of each input; read-only.

        Views of a buffer that is used again after the with-body.
        """
        self._read_ahead()
        planned, buffer, weights = self._pending.popleft()
        if planned is not load:
            raise ValueError(f"{load.tensors} is not the next load, {planned.tensors} is")
        self._num_taken += 1
        try:
            yield weights.result()
        finally:
            self._num_taken -= 1
            self._free.append(buffer)
            self._read_ahead()

    def _read_ahead(self) -> None:
        while self._next is not None and len(self._pending) < LOADS_AHEAD:
            buffer = self._buffer(self._next.num_bytes)
            if buffer is None:
                return
            reading = self._thread.submit(_read, self._sources, self._next, buffer)
            self._pending.append((self._next, buffer, reading))
            self._next = next(self._loads, None)

    def _buffer(self, num_bytes: int) -> Buffer | None:
        """A free one that is large enough, or a new one while there is room; the first load gets one however large it is."""
        fitting = [buffer for buffer in self._free if buffer.size >= num_bytes]
        if fitting:
            chosen = min(fitting, key=lambda buffer: buffer.size)
            self._free = [buffer for buffer in self._free if buffer is not chosen]
            return chosen
        while self._free and self._num_bytes + num_bytes > self._max_bytes:
            self._num_bytes -= self._free.pop().size
        if self._num_bytes + num_bytes > self._max_bytes and (self._pending or self._num_taken):
            return None
        self._num_bytes += num_bytes
        return np.empty(num_bytes, np.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)


def _read(sources: Sources, load: Load, buffer: Buffer) -> dict[str, list[Stored]]:
    weights: dict[str, list[Stored]] = {name: [] for name in load.tensors}
    room = buffer.data
    for source in sources.all:
        checkpoint = source.checkpoint
        if load.elements is None:
            size = checkpoint.flat_bytes(load.tensors)
            for name, stored_N in checkpoint.read_flat_into(load.tensors, room[:size]).items():
                weights[name].append(stored_N)
        else:
            name = load.tensors[0]
            size = checkpoint.part_bytes(name, load.elements)
            weights[name].append(checkpoint.read_part_into(name, load.elements, room[:size]))
        room = room[size + -size % _ALIGNMENT :]
    return weights


def loads_of(plans: Sequence[GroupPlan]) -> Iterator[Load]:
    """All loads in the order in which a merge takes them."""
    for plan in plans:
        yield from plan.products
        yield from plan.combination
