"""The least memory that a merge can keep to (merge_reading.py divides it up)."""

from __future__ import annotations

from warpctl.workers import merge_reading


def least_memory_bytes(num_inputs: int) -> int:
    """What init and policies, `num_inputs` in all, need: with less, buffers of weights keep their size and go beyond it."""
    counted = merge_reading.OVERHEAD_BYTES + num_inputs * merge_reading.INPUT_BYTES + merge_reading.LEAST_WEIGHTS_BYTES
    return -(-counted * 5 // 4)  # a fifth of the whole is for what is not counted
