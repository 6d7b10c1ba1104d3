"""Checkpoints, in artifacts or plain folders, read by tensor with range reads. numpy only.

What arrives may be float32, bfloat16 or float16, in any sharding.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from warpctl.errors import InputError
from warpctl.storage.bfloat16 import bfloat16_to_float32
from warpctl.storage.file_names import INDEX, SINGLE
from warpctl.storage.headers import DTYPES, LENGTH_BYTES, TensorInfo, as_stored, header_length, parse_header

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

    def view(self, name: str, start: int, end: int) -> memoryview | None:
        """Those bytes without a copy, until `forget`; None where they must be read."""
        ...

    def forget(self, name: str, start: int, end: int) -> None: ...

    def check_leases(self) -> None:
        """InputError when the bytes of a view may soon be others."""
        ...


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
        tensor, start, end = self._place(name, elements)
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

    def view(self, name: str, elements: slice | None) -> Stored | None:
        """A flattened tensor, or some elements of it, without a copy and until `forget`; None where they must be read."""
        tensor, start, end = self._place(name, elements)
        data = self.artifact.view(tensor.file, start, end)
        return None if data is None else as_stored(data, tensor.dtype)

    def forget(self, name: str, elements: slice | None) -> None:
        """A view is not used any more."""
        tensor, start, end = self._place(name, elements)
        self.artifact.forget(tensor.file, start, end)

    def _place(self, name: str, elements: slice | None) -> tuple[TensorInfo, int, int]:
        tensor = self.tensors[name]
        if elements is None:
            return tensor, tensor.start, tensor.end
        itemsize = DTYPES[tensor.dtype].itemsize
        return tensor, tensor.start + elements.start * itemsize, tensor.start + elements.stop * itemsize

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
    single = prefix + SINGLE
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
