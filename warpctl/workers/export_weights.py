"""The weights of an exported model, streamed block by block, so that memory does not grow with the model. numpy only.

weights = (1 - liti_rate) sft + liti_rate * source, in float64, rounded to float32, and from there to bfloat16 if wanted
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt

from warpctl.errors import InputError, NumericsError
from warpctl.merging.liti import liti, round_once, round_once_to_bfloat16
from warpctl.storage.file_names import INDEX
from warpctl.storage.headers import STORED_AS, TensorInfo, TensorSpec, index, split_into_shards
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint, to_float32

BLOCK_ELEMENTS = 4 * 1024 * 1024

Report = Callable[[int, int], None]


def write_weights(
    target: Store, sft: Checkpoint, source: Checkpoint, *, liti_rate: float, dtype: str, report: Report
) -> None:
    """Write all shards, and their index when there are several. `report` is told bytes done and in total."""
    check_same_tensors(sft, source)
    shards = split_into_shards(
        [TensorSpec(name, tensor.shape) for name, tensor in source.tensors.items()], dtype=STORED_AS[dtype]
    )
    total, done = sum(shard.size for shard in shards), 0
    for shard in shards:
        with target.open_write(shard.file) as sink:
            sink.write(shard.head)
            for tensor in shard.tensors:
                for values_N in _interpolated(sft, source, tensor, liti_rate=liti_rate, dtype=dtype):
                    sink.write(values_N.data.cast("B") if values_N.size else b"")
                    done += values_N.nbytes
                    report(done, total)
    if len(shards) > 1:
        target.write(INDEX, index(shards))
    report(total, total)


def check_same_tensors(sft: Checkpoint, source: Checkpoint) -> None:
    """InputError when the two are not the same architecture."""
    for name, tensor in source.tensors.items():
        if name not in sft.tensors or sft.tensors[name].shape != tensor.shape:
            raise InputError(
                f"tensor {name} of the source is not in the SFT policy, or has another shape there",
                hint="the two are not the same architecture; report this as a bug of warpctl",
            )


def _interpolated(
    sft: Checkpoint, source: Checkpoint, tensor: TensorInfo, *, liti_rate: float, dtype: str
) -> Iterator[npt.NDArray[Any]]:
    """Blocks of one tensor, flattened, in order, as they are stored."""
    num_elements = math.prod(tensor.shape)
    for start in range(0, num_elements, BLOCK_ELEMENTS):
        block = slice(start, min(start + BLOCK_ELEMENTS, num_elements))
        sft_N, source_N = (to_float32(each.read_part(tensor.name, block)).astype("float64") for each in (sft, source))
        values_N = liti(sft_N, source_N, liti_rate=liti_rate)
        try:
            yield round_once(values_N) if dtype == "float32" else round_once_to_bfloat16(values_N)
        except FloatingPointError as error:
            raise _beyond(tensor.name, dtype, liti_rate) from error


def _beyond(tensor: str, dtype: str, liti_rate: float) -> NumericsError:
    return NumericsError(
        f"tensor {tensor} leaves the range of {dtype} at LITI rate {liti_rate:g}", hint="use a smaller rate"
    )
