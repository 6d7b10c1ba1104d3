"""The safetensors format: headers in and out, and the one way in which warpctl cuts a checkpoint into shards. No I/O.

A file is: 8 bytes little-endian length, a JSON header of that length, the tensors' bytes. Offsets in the header count
from the end of the header. (https://github.com/huggingface/safetensors, "Format")
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from warpctl.errors import InputError
from warpctl.storage.file_names import SINGLE, WEIGHTS

LENGTH_BYTES: Final = 8
MAX_HEADER_BYTES: Final = 100_000_000  # the limit of the reference implementation
MAX_SHARD_BYTES: Final = 4 * 1024**3
DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # the bits; see bfloat16.py
}
"""What weights may be stored as, and how numpy holds it."""
STORED_AS: Final[Mapping[str, Literal["F32", "BF16"]]] = {"float32": "F32", "bfloat16": "BF16"}
"""What torch and transformers call it -> what safetensors does, of what is written."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies: `start` and `end` are byte offsets in `file` itself, its header included."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    end: int

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that will be written."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """A file that will be written: `head` is its length field and header, its tensors follow without gaps."""

    file: str
    head: bytes
    tensors: tuple[TensorInfo, ...]

    @property
    def size(self) -> int:
        return self.tensors[-1].end if self.tensors else len(self.head)


def header_length(head: bytes, *, file: str) -> int:
    """Bytes of the JSON header, from the first 8 bytes of a file; InputError when that cannot be one."""
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    if len(head) < LENGTH_BYTES or not 2 <= length <= MAX_HEADER_BYTES:
        raise InputError(f"{file} is not a safetensors file", hint="weights must be safetensors; convert them first")
    return length


def parse_header(header: bytes, *, file: str, file_bytes: int) -> tuple[TensorInfo, ...]:
    """Tensors of one file, in the header's order; InputError names the first thing that is wrong with it."""
    first = LENGTH_BYTES + len(header)
    try:
        entries = json.loads(header)
    except ValueError as error:
        raise InputError(
            f"{file}: its header is not JSON ({error})", hint="the file is damaged; get it again"
        ) from error
    if not isinstance(entries, dict):
        raise InputError(f"{file}: its header is not a JSON object", hint="the file is damaged; get it again")
    entries.pop("__metadata__", None)
    tensors = tuple(_tensor(name, entry, file=file, first=first) for name, entry in entries.items())
    for tensor in tensors:
        if tensor.end > file_bytes:
            raise InputError(
                f"{file} ends at byte {file_bytes}, its tensor {tensor.name} at byte {tensor.end}",
                hint="the file is truncated; get it again",
            )
    return tensors


def _tensor(name: str, entry: Any, *, file: str, first: int) -> TensorInfo:
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
        start, end = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: the header entry of {name} is malformed", hint="the file is damaged; get it again"
        ) from error
    if dtype not in DTYPES:
        raise InputError(
            f"{file}: tensor {name} is {dtype}, weights must be one of {', '.join(DTYPES)}",
            hint="quantised or integer weights cannot be merged; use the checkpoint that they were made from",
        )
    wanted = math.prod(shape) * DTYPES[dtype].itemsize
    if min(shape, default=0) < 0 or start < 0 or end - start != wanted:
        raise InputError(
            f"{file}: tensor {name} has shape {list(shape)} of {dtype} ({wanted} bytes) but bytes {start} to {end}",
            hint="the file is damaged; get it again",
        )
    return TensorInfo(name=name, dtype=dtype, shape=shape, file=file, start=first + start, end=first + end)


def split_into_shards(
    specs: Iterable[TensorSpec], *, dtype: str = "F32", max_shard_bytes: int = MAX_SHARD_BYTES
) -> tuple[Shard, ...]:
    """The canonical layout: tensors sorted by name, a new file when the next tensor would exceed `max_shard_bytes`.

    It depends on names, shapes and the limit alone; a tensor above the limit gets a file of its own. One file is called
    model.safetensors, several model-00001-of-0000N.safetensors (with an index beside them, see `index`).
    """
    itemsize = DTYPES[dtype].itemsize
    parts: list[list[TensorSpec]] = [[]]
    num_bytes = 0
    for spec in sorted(specs, key=lambda spec: spec.name):
        spec_bytes = math.prod(spec.shape) * itemsize
        if parts[-1] and num_bytes + spec_bytes > max_shard_bytes:
            parts.append([])
            num_bytes = 0
        parts[-1].append(spec)
        num_bytes += spec_bytes
    if len(parts) == 1:
        return (_shard(SINGLE, parts[0], dtype),)
    count = len(parts)
    return tuple(
        _shard(f"model-{number:05d}-of-{count:05d}{WEIGHTS}", part, dtype) for number, part in enumerate(parts, 1)
    )


def _shard(file: str, specs: list[TensorSpec], dtype: str) -> Shard:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers refuses a file that does not say so
    position = 0
    for spec in specs:
        end = position + math.prod(spec.shape) * DTYPES[dtype].itemsize
        entries[spec.name] = {"dtype": dtype, "shape": list(spec.shape), "data_offsets": [position, end]}
        position = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    tensors = parse_header(header, file=file, file_bytes=LENGTH_BYTES + len(header) + position)
    return Shard(file, len(header).to_bytes(LENGTH_BYTES, "little") + header, tensors)


def index(shards: Iterable[Shard]) -> bytes:
    """model.safetensors.index.json of several shards, as transformers writes it."""
    tensors = [tensor for shard in shards for tensor in shard.tensors]
    body = {
        "metadata": {"total_size": sum(tensor.num_bytes for tensor in tensors)},
        "weight_map": {tensor.name: tensor.file for tensor in tensors},
    }
    return (json.dumps(body, indent=2) + "\n").encode()


def as_stored(data: bytes | bytearray | memoryview, dtype: str) -> npt.NDArray[Any]:
    """Bytes of a tensor as a flat array of its stored type (bfloat16 as uint16), read-only where they are."""
    return np.frombuffer(data, DTYPES[dtype])
