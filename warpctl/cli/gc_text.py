"""A garbage collection's plan as a table and as a document."""

from __future__ import annotations

from typing import Any

from warpctl.cli.counts import count_text
from warpctl.cli.sizes import size_text
from warpctl.cli.table import table_text
from warpctl.storage.gc import GcPlan


def gc_text(plan: GcPlan, *, is_wide: bool) -> str:
    """Files and bytes by reason; wide: every file."""
    if not plan.items:
        return "Nothing to collect."
    if is_wide:
        rows = [[item.path, size_text(item.size), item.why] for item in plan.items]
        table = table_text(["PATH", "SIZE", "WHY"], rows)
    else:
        groups: dict[str, list[int]] = {}
        for item in plan.items:
            groups.setdefault(item.why, []).append(item.size)
        rows = [[why, str(len(sizes)), size_text(sum(sizes))] for why, sizes in groups.items()]
        table = table_text(["WHY", "FILES", "SIZE"], rows)
    return f"{table}\n\nTo delete: {count_text(len(plan.items), 'file')}, {size_text(plan.num_bytes)}."


def gc_document(plan: GcPlan) -> dict[str, Any]:
    """The plan for programs."""
    return {
        "items": [{"path": item.path, "bytes": item.size, "why": item.why} for item in plan.items],
        "bytes": plan.num_bytes,
    }
