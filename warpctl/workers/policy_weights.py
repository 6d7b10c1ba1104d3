"""A policy's weights as tensors that own their memory, from any checkpoint: verified ranges, several at once, no files between."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warpctl.storage.headers import TensorSpec
from warpctl.storage.tensors import Checkpoint
from warpctl.workers.weight_stream import weight_stream

Stored = npt.NDArray[Any]


def read_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Float32 tensors by their names in the checkpoint, in their shapes, on the CPU; exact from bfloat16 and float16.

    Each has memory of its own, which whoever saves or moves a single one relies on. Read in the order of the files.
    """
    infos = sorted(checkpoint.tensors.values(), key=lambda info: (info.file, info.start, info.end))
    weights = {info.name: torch.empty(info.shape, dtype=torch.float32) for info in infos}
    with weight_stream([TensorSpec(info.name, info.shape) for info in infos], checkpoint) as parts:
        for name, elements, (stored_N,) in parts:
            _widen(stored_N, weights[name].numpy().reshape(-1)[elements])
    return weights


def _widen(stored_N: Stored, target_N: npt.NDArray[np.float32]) -> None:
    if stored_N.dtype == np.uint16:
        np.left_shift(stored_N, np.uint32(16), out=target_N.view(np.uint32))
    else:
        np.copyto(target_N, stored_N)
