"""merge.json: what a merge says of itself beside the weights that it wrote. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpctl.merging.diagnostics import GroupDiagnostics, summarise


def merge_record(groups: Sequence[GroupDiagnostics], *, tied_copies: Sequence[str]) -> dict[str, Any]:
    """What was seen; whoever merges puts before it what was asked for."""
    return {
        "tiedCopies": list(tied_copies),
        "summary": summarise(groups),
        "groups": [group.to_json() for group in groups],
    }
