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
from warpctl.spec.merge_method import MergeMethod
from warpctl.workers.merge_sources import Sources

Stored = npt.NDArray[Any]
Buffer = npt.NDArray[np.uint8]
_ALIGNMENT = 64
LOADS_AHEAD = 3
"""However much memory there is: more than the next few loads is not wanted early."""

MIB = 1024**2
DEFAULT_MEMORY_BYTES = 1024 * MIB
OVERHEAD_BYTES = 192 * MIB
"""Python with numpy and a store's library, and the batches that are being written."""
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
    method: MergeMethod,
    *,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    needs: Callable[[str], bool] = lambda _: True,
) -> tuple[GroupPlan, ...]:
    """The groups in order, and how each is read; `needs` says which tensors are still to be written."""
    max_bytes = weights_bytes(memory_bytes, len(sources.all))
    groups = split_into_groups((spec.name for spec in sources.specs), method.granularity)
    return tuple(plan_group(sources, group, needs, max_bytes=max_bytes) for group in groups)


def weights_bytes(memory_bytes: int, num_inputs: int) -> int:
    """What buffers of weights may take of a process's memory, less that of uploads; a fifth of it is for what is not counted."""
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


class _Ring:
    """Buffers within one piece of memory, given back in the order in which they were taken."""

    def __init__(self, size: int) -> None:
        self.bytes: Buffer = np.empty(size + -size % _ALIGNMENT, np.uint8)
        self._taken: deque[slice] = deque()

    def take(self, num_bytes: int) -> slice | None:
        """A place of so many bytes behind the last one, or at the beginning; None until enough is given back.

        What is larger than all of it gets memory of its own size once nothing else is taken: one buffer there must be.
        """
        if not self._taken and num_bytes > self.bytes.size:
            self.bytes = np.empty(num_bytes + _ALIGNMENT, np.uint8)
        for start in (self._taken[-1].stop if self._taken else 0, 0):
            stop = start + num_bytes + -num_bytes % _ALIGNMENT
            if stop <= self.bytes.size and all(stop <= taken.start or start >= taken.stop for taken in self._taken):
                self._taken.append(slice(start, stop))
                return self._taken[-1]
        return None

    def give_back(self, place: slice) -> None:
        self._taken.remove(place)


class Reader:
    """Performs loads, one ahead of the other. Use it as a context manager: it owns a thread and the buffers."""

    def __init__(self, sources: Sources, loads: Iterable[Load], *, max_bytes: int) -> None:
        self._sources = sources
        self._loads = iter(loads)
        self._next = next(self._loads, None)
        self._buffers = _Ring(max_bytes)
        self._pending: deque[tuple[Load, slice, Future[dict[str, list[Stored]]]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read")

    @contextlib.contextmanager
    def take(self, load: Load) -> Iterator[dict[str, list[Stored]]]:
        """The weights of the next load, which must be `load`: name -> flat, in stored types, of each input; read-only.

        Views of a buffer that is used again after the with-body.
        """
        self._read_ahead()
        planned, place, weights = self._pending.popleft()
        if planned is not load:
            raise ValueError(f"{load.tensors} is not the next load, {planned.tensors} is")
        try:
            found = weights.result()
            for source in self._sources.all:
                source.checkpoint.artifact.check_leases()
            yield found
        finally:
            self._forget(planned)
            self._buffers.give_back(place)
        self._read_ahead()

    def coming(self) -> Future[dict[str, list[Stored]]] | None:
        """The weights of the load that is taken next, if there is room for them already; valid until they were taken."""
        return self._pending[0][2] if self._pending else None

    def _forget(self, load: Load) -> None:
        for source in self._sources.all:
            for name in load.tensors:
                source.checkpoint.forget(name, load.elements)

    def _read_ahead(self) -> None:
        while self._next is not None and len(self._pending) < LOADS_AHEAD:
            place = self._buffers.take(self._next.num_bytes)
            if place is None:
                return
            reading = self._thread.submit(_read, self._sources, self._next, self._buffers.bytes[place])
            self._pending.append((self._next, place, reading))
            self._next = next(self._loads, None)

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
        views = [(name, checkpoint.view(name, load.elements)) for name in load.tensors]
        seen = [(name, view) for name, view in views if view is not None]
        if len(seen) == len(views):
            for name, view in seen:
                weights[name].append(view)
            continue
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
