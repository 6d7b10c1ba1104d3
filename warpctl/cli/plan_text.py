"""A plan as a table and as a document."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from warpctl.cli.counts import shape_text
from warpctl.cli.planned import Fate, Planned, PlannedStage
from warpctl.cli.spec_changes import changes_text
from warpctl.cli.table import table_text


def plan_text(plan: Planned, *, is_wide: bool, since: str = "Changes since the last run") -> str:
    """The head, the stages (by iteration and kind; wide: one by one), the changes, the sum."""
    head = f"WarpRun {plan.run.full_name}  {shape_text(plan.run)}"
    parts = [head, _stages_wide(plan) if is_wide else _stages(plan)]
    if plan.changes:
        parts.append(f"{since}\n{changes_text(plan.changes, sys.stdout)}")
    elif plan.has_run_before:
        parts.append("Nothing in the spec has changed since the last run.")
    return "\n\n".join([*parts, _sum(plan)])


def _sum(plan: Planned) -> str:
    counts = Counter(row.fate for row in plan.rows)
    to_run = counts[Fate.NEW] + counts[Fate.RUNNING]
    unknown = f", {counts[Fate.UNKNOWN]} known after import" if counts[Fate.UNKNOWN] else ""
    running = f" ({counts[Fate.RUNNING]} running now)" if counts[Fate.RUNNING] else ""
    return f"Plan: {to_run} to run{running}, {plan.num_reused} reused{unknown}."


def _stages(plan: Planned) -> str:
    groups: dict[str, list[PlannedStage]] = {}
    for row in plan.rows:
        groups.setdefault(group_name(row), []).append(row)
    rows = [
        [name, str(len(group)), str(sum(row.gpus for row in group)), _fates(group)] for name, group in groups.items()
    ]
    return table_text(["STAGE", "JOBS", "GPUS", "CACHE"], rows)


def _fates(group: list[PlannedStage]) -> str:
    counts = Counter(str(row.fate) for row in group)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {fate}" for fate, count in counts.items())


def group_name(row: PlannedStage) -> str:
    """iter 1 rl, control NoAnchor rl, import, report."""
    parts = row.id.split("/")
    match parts[0]:
        case "rl" | "merge" | "evaluate":
            return f"iter {parts[1]} {parts[0]}"
        case "control":
            return f"control {parts[1]} {parts[2]}"
        case _:
            return parts[0]


def _stages_wide(plan: Planned) -> str:
    rows = [[row.id, str(row.gpus), str(row.fate), row.key or "-"] for row in plan.rows]
    return table_text(["STAGE", "GPUS", "CACHE", "KEY"], rows)


def plan_document(plan: Planned) -> dict[str, Any]:
    """The plan for programs."""
    return {
        "namespace": plan.run.metadata.namespace,
        "name": plan.run.metadata.name,
        "stages": [
            {"id": row.id, "kind": str(row.kind), "key": row.key, "cache": str(row.fate), "gpus": row.gpus}
            for row in plan.rows
        ],
        "changes": [
            {
                "path": each.change.path,
                "old": each.change.old,
                "new": each.change.new,
                "changeClass": str(each.change.change_class),
                "effect": each.effect,
                "madeAnew": list(each.lost),
            }
            for each in plan.changes
        ],
        "toRun": plan.num_to_make,
        "reused": plan.num_reused,
    }
