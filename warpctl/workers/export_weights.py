"""The weights of an exported model, streamed, so that memory does not grow with the model. No torch.

weights = (1 - liti_rate) sft + liti_rate * source, in float64, rounded once: to float32, or to bfloat16.

That is a next init whose only member is the source, and the kernels of a merge make it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from warpctl.errors import InputError, NumericsError
from warpctl.merging.product import Product
from warpctl.storage.backend import Sink
from warpctl.storage.checkpoint_writer import CheckpointWriter
from warpctl.storage.headers import MAX_SHARD_BYTES, STORED_AS, TensorSpec
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint, to_float32
from warpctl.workers.merge_arithmetic import MergeArithmetic
from warpctl.workers.weight_stream import LOAD_BYTES, weight_stream

Stored = npt.NDArray[Any]
Report = Callable[[int, int], None]

_THE_SOURCE_ALONE = np.array([0.0, 1.0])


def write_weights(
    target: Store,
    sft: Checkpoint,
    source: Checkpoint,
    *,
    liti_rate: float,
    dtype: str,
    report: Report,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    load_bytes: int = LOAD_BYTES,
) -> None:
    """Write all shards, and their index when there are several. `report` is told bytes done and in total.

    NumericsError names the tensor that holds NaN or Inf, or that leaves the range of `dtype` at this rate.
    """
    check_same_tensors(sft, source)
    specs = [TensorSpec(name, tensor.shape) for name, tensor in source.tensors.items()]
    stored_as = STORED_AS[dtype]
    writer = CheckpointWriter(_Folder(target), prefix="", specs=specs, dtype=stored_as, max_shard_bytes=max_shard_bytes)
    total, done = sum(shard.size for shard in writer.shards), 0
    with (
        writer,
        MergeArithmetic([Product("next-init", stored_as)]) as arithmetic,
        weight_stream(specs, sft, source, load_bytes=load_bytes) as parts,
    ):
        for tensor, _, stored_K in parts:

            def write(_which: int, values_N: Stored, tensor: str = tensor) -> None:
                nonlocal done
                writer.append(tensor, values_N)
                done += values_N.nbytes
                report(done, total)

            try:
                arithmetic.combine(stored_K, _THE_SOURCE_ALONE, write, liti_rate=liti_rate)
            except FloatingPointError as error:
                raise _not_finite(tensor, stored_K, dtype, liti_rate) from error
    report(total, total)


def check_same_tensors(sft: Checkpoint, source: Checkpoint) -> None:
    """InputError when the two are not the same architecture."""
    for name, tensor in source.tensors.items():
        if name not in sft.tensors or sft.tensors[name].shape != tensor.shape:
            raise InputError(
                f"tensor {name} of the source is not in the SFT policy, or has another shape there",
                hint="the two are not the same architecture; report this as a bug of warpctl",
            )


class _Folder:
    """A store's root, as what a checkpoint is written to."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def open_file(self, name: str) -> AbstractContextManager[Sink]:
        return self._store.open_write(name)

    def write_file(self, name: str, data: bytes) -> None:
        self._store.write(name, data)


def _not_finite(tensor: str, stored_K: Sequence[Stored], dtype: str, liti_rate: float) -> NumericsError:
    if not all(np.isfinite(to_float32(stored_N)).all() for stored_N in stored_K):
        return NumericsError(f"tensor {tensor} holds NaN or Inf", hint="that policy diverged; export another point")
    return NumericsError(
        f"tensor {tensor} leaves the range of {dtype} at LITI rate {liti_rate:g}", hint="use a smaller rate"
    )
