"""Checkpoints written as a stream, in the canonical layout (headers.py), into an artifact or a plain folder. numpy only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from warpctl.storage.backend import Sink
from warpctl.storage.bfloat16 import float32_to_bfloat16
from warpctl.storage.file_names import INDEX
from warpctl.storage.headers import DTYPES, MAX_SHARD_BYTES, Shard, TensorInfo, TensorSpec, index, split_into_shards

Stored = npt.NDArray[Any]


class Target(Protocol):
    """What a checkpoint is written to: a Publication, or a NewFolder."""

    def open_file(self, name: str) -> AbstractContextManager[Sink]: ...

    def write_file(self, name: str, data: bytes) -> object: ...


class CheckpointWriter:
    """Writes a checkpoint in the canonical layout, tensor after tensor in sorted order, without holding it.

    Use it as a context manager: left by an exception it leaves no half-written shard; left cleanly, all tensors must
    have been written whole. Shards whose files are in `others` are written by somebody else, or were: they are passed over.
    """

    def __init__(
        self,
        publication: Target,
        *,
        prefix: str,
        specs: Iterable[TensorSpec],
        dtype: str = "F32",
        max_shard_bytes: int = MAX_SHARD_BYTES,
        others: Collection[str] = (),
    ) -> None:
        self.shards = split_into_shards(specs, dtype=dtype, max_shard_bytes=max_shard_bytes)
        self.closed: list[str] = []
        """Files of the shards that are complete."""
        self._publication = publication
        self._prefix = prefix
        self._dtype = dtype
        mine = (shard for shard in self.shards if shard.file not in others)
        self._remaining = iter([(shard, tensor) for shard in mine for tensor in shard.tensors])
        self._shard: Shard | None = None
        self._tensor: TensorInfo | None = None
        self._missing_elements = 0
        self._stack = ExitStack()
        self._sink: Sink | None = None

    def append(self, name: str, values: Stored) -> None:
        """The next values of tensor `name`, in C order; any shape, so that a tensor may come in blocks.

        They are float32, to be stored as the writer's dtype, or have that already (bfloat16 as uint16).
        ValueError when it is not this tensor's turn, these are more values than it has or of another type: a mistake of the
        caller's.
        """
        if values.dtype not in (np.float32, DTYPES[self._dtype]):
            raise ValueError(f"values of {name} came as {values.dtype}, float32 or {self._dtype} expected")
        if self._missing_elements == 0:
            self._next_tensor()
        if self._tensor is None or name != self._tensor.name or values.size > self._missing_elements:
            wanted = f"{self._missing_elements} more of {self._tensor.name}" if self._tensor else "nothing more"
            raise ValueError(f"{values.size} values of {name} came, {wanted} expected")
        self._missing_elements -= values.size
        if self._sink is not None:
            flat = np.ascontiguousarray(values)
            if flat.dtype != DTYPES[self._dtype]:
                flat = float32_to_bfloat16(flat) if self._dtype == "BF16" else flat.astype(DTYPES[self._dtype])
            self._sink.write(flat.data.cast("B") if flat.size else b"")

    def _next_tensor(self) -> None:
        """Go on to the next tensor; one without elements has nothing to wait for."""
        shard, self._tensor = next(self._remaining, (None, None))
        if shard is not self._shard:
            self._open_shard(shard)
        self._missing_elements = self._tensor.num_elements if self._tensor else 0

    def _open_shard(self, shard: Shard | None) -> None:
        self._close_shard()
        if shard is not None:
            self._sink = self._stack.enter_context(self._publication.open_file(self._prefix + shard.file))
            self._sink.write(shard.head)
        self._shard = shard

    def _close_shard(self) -> None:
        self._stack.close()
        if self._shard is not None:
            self.closed.append(self._shard.file)
        self._shard = self._sink = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stack.__exit__(kind, error, trace)
            return
        if self._missing_elements or next(self._remaining, None) is not None:
            unfinished = ValueError(f"checkpoint {self._prefix!r} was left before all its tensors were written")
            if not self._stack.__exit__(ValueError, unfinished, None):
                raise unfinished
        self._close_shard()
        if len(self.shards) > 1:
            self._publication.write_file(self._prefix + INDEX, index(self.shards))


class WritersSideBySide:
    """Checkpoints of the same tensors. Use it as a context manager, as one writer."""

    def __init__(self, writers: Sequence[CheckpointWriter]) -> None:
        self._writers = tuple(writers)
        self._stack = ExitStack()

    @property
    def closed(self) -> list[str]:
        """Files of the shards that are complete in all of them."""
        first, *others = self._writers
        return [file for file in first.closed if all(file in writer.closed for writer in others)]

    def append(self, which: int, name: str, values: Stored) -> None:
        """The next values of tensor `name` for one of the writers; several threads may append, each for another writer."""
        self._writers[which].append(name, values)

    def __enter__(self) -> Self:
        for writer in self._writers:
            self._stack.enter_context(writer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
