"""The measured side's end of a conversation: run a block of steps, say how long it took, wait for the word to go on.

So two processes take turns (A B A B) in one training loop each, and a noisy minute hits both alike. Plain Python.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GO = "go\n"


def peak_memory_bytes() -> int:
    """The most memory that this program held at any time (VmHWM: ru_maxrss would count the parent's, too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


class Blocks:
    """Told of the end of every step; answers at the end of every block."""

    def __init__(self, block_steps: int, num_blocks: int) -> None:
        # what libraries print must not come between the answers
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._block_steps = block_steps
        self._num_left = num_blocks
        self._num_steps = 0
        self._start()

    def step_ended(self) -> None:
        """Count a step. At the end of a block: answer, and wait to be told to go on unless it was the last."""
        self._num_steps += 1
        if self._num_steps < self._block_steps:
            return
        seconds, cpu_seconds = time.perf_counter() - self._clock, time.process_time() - self._cpu_clock
        self._num_left -= 1
        self.answer({"seconds": seconds, "cpuSeconds": cpu_seconds, "peakBytes": peak_memory_bytes()})
        if self._num_left:
            if sys.stdin.readline() != GO:
                raise SystemExit("the benchmark is gone")
            self._start()

    def answer(self, body: Mapping[str, Any]) -> None:
        """One JSON line to whoever measures."""
        self._answers.write(json.dumps(body) + "\n")
        self._answers.flush()

    def _start(self) -> None:
        self._num_steps = 0
        self._clock, self._cpu_clock = time.perf_counter(), time.process_time()
