"""Checkpoints, in artifacts or plain folders: read by tensor with range reads, written as a stream. numpy only.

What arrives may be float32, bfloat16 or float16, in any sharding; what is written is the canonical layout (headers.py).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from warpctl.errors import InputError
from warpctl.storage.backend import Sink
from warpctl.storage.bfloat16 import bfloat16_to_float32, float32_to_bfloat16
from warpctl.storage.headers import (
    DTYPES,
    INDEX,
    LENGTH_BYTES,
    MAX_SHARD_BYTES,
    Shard,
    TensorInfo,
    TensorSpec,
    as_stored,
    header_length,
    index,
    parse_header,
    split_into_shards,
)

__all__ = [
    "MAX_SHARD_BYTES",
    "Checkpoint",
    "CheckpointWriter",
    "TensorInfo",
    "TensorSpec",
    "to_float32",
    "write_checkpoint",
]

Stored = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

_FIRST_READ_BYTES = 256 * 1024
_JOIN_BYTES = 1024 * 1024  # reading this much too much costs less than another request


def to_float32(stored: Stored) -> Float32:
    """Stored values (float32, float16, or bfloat16 as uint16) as float32: exact, same shape, always a copy."""
    return bfloat16_to_float32(stored) if stored.dtype == np.uint16 else stored.astype(np.float32)


class StoredFile(Protocol):
    """What is known of a file before it is read."""

    @property
    def size(self) -> int: ...


class Files(Protocol):
    """What a checkpoint is read from: an Artifact, or a PlainFolder."""

    def names(self, prefix: str = "") -> Sequence[str]: ...

    def entry(self, name: str) -> StoredFile: ...

    def read(self, name: str) -> bytes: ...

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of a file, cut at its end."""
        ...

    def read_into(self, name: str, start: int, end: int, target: memoryview) -> None:
        """Fill `target`, which has `end - start` bytes, with that range."""
        ...


class Target(Protocol):
    """What a checkpoint is written to: a Publication, or a NewFolder."""

    def open_file(self, name: str) -> AbstractContextManager[Sink]: ...

    def write_file(self, name: str, data: bytes) -> object: ...


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one artifact or folder, under a prefix: `tensors` by name in sorted order, read on demand."""

    artifact: Files
    prefix: str
    tensors: Mapping[str, TensorInfo]

    @classmethod
    def open(cls, artifact: Files, *, prefix: str = "") -> Checkpoint:
        """Read the headers only. InputError: no weights, damaged headers, a tensor twice or not where the index says."""
        tensors: dict[str, TensorInfo] = {}
        for file in _weight_files(artifact, prefix):
            for tensor in _read_header(artifact, file):
                if tensor.name in tensors:
                    raise InputError(
                        f"tensor {tensor.name} is both in {tensors[tensor.name].file} and in {file}",
                        hint="save the checkpoint again into an empty folder",
                    )
                tensors[tensor.name] = tensor
        _check_index(artifact, prefix, tensors)
        if not tensors:
            raise InputError(f"{prefix or 'the artifact'} holds no tensors", hint="check what was imported")
        return cls(artifact, prefix, {name: tensors[name] for name in sorted(tensors)})

    def read_raw(self, name: str) -> Stored:
        """One tensor in its shape and stored type (bfloat16 as uint16), read-only."""
        return self.read_part(name, slice(0, self.tensors[name].num_elements)).reshape(self.tensors[name].shape)

    def read(self, name: str) -> Float32:
        """One tensor in its shape, as float32."""
        return to_float32(self.read_raw(name))

    def read_part(self, name: str, elements: slice) -> Stored:
        """Some elements of the flattened tensor, in its stored type."""
        tensor = self.tensors[name]
        itemsize = DTYPES[tensor.dtype].itemsize
        start, end = tensor.start + elements.start * itemsize, tensor.start + elements.stop * itemsize
        return as_stored(self.artifact.read_range(tensor.file, start, end), tensor.dtype)

    def part_bytes(self, name: str, elements: slice) -> int:
        """Size of some elements of a tensor as they are stored."""
        return int(elements.stop - elements.start) * DTYPES[self.tensors[name].dtype].itemsize

    def read_part_into(self, name: str, elements: slice, buffer: memoryview) -> Stored:
        """As read_part, as a view of `buffer`, which must have just that many bytes."""
        tensor = self.tensors[name]
        start = tensor.start + elements.start * DTYPES[tensor.dtype].itemsize
        self.artifact.read_into(tensor.file, start, start + buffer.nbytes, buffer)
        return as_stored(buffer.toreadonly(), tensor.dtype)

    def flat_bytes(self, names: Iterable[str]) -> int:
        """Size of the buffer that read_flat_into needs for these tensors."""
        return sum(run[-1].end - run[0].start for run in _neighbours([self.tensors[name] for name in names]))

    def read_flat_into(self, names: Iterable[str], buffer: memoryview) -> dict[str, Stored]:
        """Several tensors, flattened, in their stored types, as views of `buffer`, with as few requests as neighbours allow."""
        stored: dict[str, Stored] = {}
        for run in _neighbours([self.tensors[name] for name in names]):
            first, end = run[0].start, run[-1].end
            data, buffer = buffer[: end - first], buffer[end - first :]
            self.artifact.read_into(run[0].file, first, end, data)
            for tensor in run:
                part = data[tensor.start - first : tensor.end - first]
                stored[tensor.name] = as_stored(part.toreadonly(), tensor.dtype)
        return stored


def _neighbours(tensors: Iterable[TensorInfo]) -> Iterator[list[TensorInfo]]:
    run: list[TensorInfo] = []
    for tensor in sorted(tensors, key=lambda tensor: (tensor.file, tensor.start, tensor.end)):
        if run and (tensor.file != run[-1].file or tensor.start - run[-1].end > _JOIN_BYTES):
            yield run
            run = []
        run.append(tensor)
    if run:
        yield run


def _weight_files(artifact: Files, prefix: str) -> Sequence[str]:
    names = set(artifact.names(prefix))
    if prefix + INDEX in names:
        files = sorted({prefix + file for file in _weight_map(artifact, prefix).values()})
        missing = [file for file in files if file not in names]
        if missing:
            raise InputError(f"{missing[0]} is named in {INDEX} but is not there", hint="get the checkpoint again")
        return files
    single = prefix + "model.safetensors"
    if single in names:
        return [single]
    raise InputError(
        f"no {single} and no {prefix + INDEX} among its {len(names)} files",
        hint="weights must be safetensors, named as transformers' save_pretrained names them",
    )


def _weight_map(artifact: Files, prefix: str) -> dict[str, str]:
    try:
        weight_map = json.loads(artifact.read(prefix + INDEX))["weight_map"]
        return {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{prefix + INDEX} is malformed", hint="get the checkpoint again") from error


def _check_index(artifact: Files, prefix: str, tensors: Mapping[str, TensorInfo]) -> None:
    if prefix + INDEX not in artifact.names(prefix):
        return
    for name, file in _weight_map(artifact, prefix).items():
        if name not in tensors or tensors[name].file != prefix + file:
            raise InputError(f"tensor {name} is not in {file}, where {INDEX} has it", hint="get the checkpoint again")


def _read_header(artifact: Files, file: str) -> tuple[TensorInfo, ...]:
    file_bytes = artifact.entry(file).size
    head = artifact.read_range(file, 0, min(_FIRST_READ_BYTES, file_bytes))
    end = LENGTH_BYTES + header_length(head, file=file)
    if end > file_bytes:
        raise InputError(
            f"{file} ends at byte {file_bytes}, its header at byte {end}", hint="the file is truncated; get it again"
        )
    header = head[LENGTH_BYTES:end] if end <= len(head) else artifact.read_range(file, LENGTH_BYTES, end)
    return parse_header(header, file=file, file_bytes=file_bytes)


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


def write_checkpoint(
    publication: Target,
    *,
    prefix: str,
    specs: Iterable[TensorSpec],
    tensors: Iterable[tuple[str, Float32]],
    dtype: str = "F32",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write tensors that come in sorted order of their names, one at a time, in the canonical layout."""
    with CheckpointWriter(
        publication, prefix=prefix, specs=specs, dtype=dtype, max_shard_bytes=max_shard_bytes
    ) as writer:
        for name, values in tensors:
            writer.append(name, values)
