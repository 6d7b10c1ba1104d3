"""The memory of a merge: what outputs take of it, the least that it can keep to (merge_reading.py divides up the rest)."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterable
from typing import Final

from warpctl.storage.uploads import buffers_bytes
from warpctl.workers import merge_reading

_MMAP_THRESHOLD: Final = -3  # mallopt(3)
_LARGE_BYTES: Final = 4 * merge_reading.MIB


def least_memory_bytes(num_inputs: int, targets: Iterable[str]) -> int:
    """What init and policies, `num_inputs` in all, need to be merged into these URIs.

    With less, buffers of weights and of what is on its way keep their size and go beyond it.
    """
    counted = merge_reading.OVERHEAD_BYTES + num_inputs * merge_reading.INPUT_BYTES + merge_reading.LEAST_WEIGHTS_BYTES
    return -(-counted * 5 // 4) + upload_bytes(targets)  # a fifth of the rest is for what is not counted


def upload_bytes(targets: Iterable[str]) -> int:
    """What parts on their way to these URIs take; to a disk there are none."""
    return buffers_bytes(sum(uri.startswith(("gs://", "s3://")) for uri in targets))


def give_back_at_once() -> None:
    """Have glibc give large buffers back to the system when they are freed.

    Left alone it learns from the first that is freed (mallopt(3), M_MMAP_THRESHOLD), and from then on each thread keeps
    tens of MiB for the next one.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
