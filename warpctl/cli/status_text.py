"""The head of a status: one line, and the conditions."""

from __future__ import annotations

import sys

from warpctl.cli.table import table_text
from warpctl.cli.terminal import BOLD, paint
from warpctl.spec.status import RECONCILING, STALLED, SUCCEEDED, SUSPENDED, RunStatus


def state_word(status: RunStatus, *, is_attended: bool = True) -> str:
    """The run's state in a word, the strongest condition first; `is_attended`: some `warpctl run` drives it now."""
    running = "Running" if is_attended else "Unattended"
    words = {SUCCEEDED: "Succeeded", SUSPENDED: "Suspended", STALLED: "Stalled", RECONCILING: running}
    return next((word for kind, word in words.items() if status.is_true(kind)), "Unknown")


def headline(status: RunStatus, *, is_attended: bool) -> str:
    """ml/demo  Running  iteration 2/5  stages 11/25  1 retry  GPU-hours 21.4"""
    parts = [
        f"{status.namespace}/{status.name}",
        state_word(status, is_attended=is_attended),
        f"iteration {status.iteration}/{status.iterations}",
        f"stages {status.stages_succeeded}/{status.stages_total}",
    ]
    if status.retries:
        parts.append(f"{status.retries} {'retry' if status.retries == 1 else 'retries'}")
    if status.gpu_hours:
        parts.append(f"GPU-hours {status.gpu_hours:.2f}")
    return paint("  ".join(parts), BOLD, sys.stdout)


def conditions_text(status: RunStatus) -> str:
    """One row a condition."""
    rows = [[each.type, str(each.status), each.reason, each.message] for each in status.conditions]
    return table_text(["CONDITION", "STATUS", "REASON", "MESSAGE"], rows)
