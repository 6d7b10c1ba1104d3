"""A policy's weights into tensors of float32: chunk by chunk, verified and converted by the same thread, no files between.

Nothing is held beside the tensors but a chunk for each thread that reads. (What combines several checkpoints, a merge or an
export, reads the same tensor of all of them together: merge_reading.py, weight_stream.py.)
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpctl.storage.artifact import Artifact
from warpctl.storage.headers import DTYPES, TensorInfo, as_stored

Stored = npt.NDArray[Any]


def read_weights(artifact: Artifact, tensors: Mapping[str, TensorInfo]) -> dict[str, Tensor]:
    """`tensors` by their names in their shapes, on the CPU. Each has memory of its own, which whoever moves a single one relies on."""
    weights = {name: torch.empty(info.shape, dtype=torch.float32) for name, info in tensors.items()}
    fill_weights(artifact, tensors, weights)
    return weights


def fill_weights(artifact: Artifact, tensors: Mapping[str, TensorInfo], targets: Mapping[str, Tensor]) -> None:
    """Overwrite `targets`, by their names in the checkpoint, with what is stored there; exact from bfloat16 and float16.

    targets: float32, contiguous, on any device, of the stored shapes; what has no target is not converted.
    CorruptError for stored bytes that were altered: what the targets hold then is not to be used.
    """
    flat = {name: target.detach().view(-1) for name, target in targets.items()}
    for file, infos in itertools.groupby(sorted((tensors[name] for name in flat), key=_by_file), key=_by_file):
        _fill_from_file(artifact, file, list(infos), flat)


def _by_file(info: TensorInfo) -> str:
    return info.file


def _fill_from_file(artifact: Artifact, file: str, infos: Sequence[TensorInfo], flat: Mapping[str, Tensor]) -> None:
    chunk_bytes = artifact.manifest.chunk_bytes
    in_chunk: defaultdict[int, list[TensorInfo]] = defaultdict(list)
    for info in infos:
        itemsize = DTYPES[info.dtype].itemsize
        if info.start % itemsize or chunk_bytes % itemsize:
            # an element may lie in two chunks; safetensors itself writes none so
            data = artifact.read_range(file, info.start, info.end)
            _widen(as_stored(bytearray(data), info.dtype), flat[info.name])
            continue
        for index in range(info.start // chunk_bytes, -(-info.end // chunk_bytes)):
            in_chunk[index].append(info)

    def convert(start: int, data: memoryview) -> None:
        for info in in_chunk.get(start // chunk_bytes, ()):
            first, last = max(info.start, start), min(info.end, start + len(data))
            stored_N = as_stored(data[first - start : last - start], info.dtype)
            place = (first - info.start) // stored_N.itemsize
            _widen(stored_N, flat[info.name][place : place + stored_N.size])

    artifact.for_each_chunk(file, convert)


def _widen(stored_N: Stored, target_N: Tensor) -> None:
    if target_N.device.type != "cpu":
        found_N = torch.from_numpy(stored_N)
        found_N = found_N.view(torch.bfloat16) if stored_N.dtype == np.uint16 else found_N
        target_N.copy_(found_N.to(target_N.device))  # as it is stored: half the bytes
    elif stored_N.dtype == np.uint16:
        np.left_shift(stored_N, np.uint32(16), out=target_N.numpy().view(np.uint32))
    else:
        np.copyto(target_N.numpy(), stored_N)
