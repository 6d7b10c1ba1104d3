"""Numbers with their nouns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warpctl.spec.warp_run import WarpRun


def count_text(number: int, noun: str) -> str:
    """1 stage, 2 stages."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shape_text(run: WarpRun) -> str:
    """3 iterations x 4 RL runs."""
    return f"{count_text(run.spec.iterations, 'iteration')} x {count_text(run.spec.rl_runs, 'RL run')}"
