"""Statuses as the controller wrote them on a real API server, in statuses/: recorded by tests/cluster/test_gitops.py with
WARPCTL_UPDATE_GOLDEN=1, which without it says whether they still are what the controller writes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

STATUSES = Path(__file__).parent / "statuses"
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?")
_FIXED = {"uid": "00000000-0000-0000-0000-000000000000", "resourceVersion": "1"}
_DIGESTS = ("acceptedSpecDigest", "handled", "report")

Object = dict[str, Any]


def kinds() -> list[str]:
    """Every kind of status that is recorded."""
    return sorted(path.stem for path in STATUSES.glob("*.yaml"))


def load(kind: str) -> Object:
    """A WarpRun with a recorded status."""
    found: Object = YAML(typ="safe").load((STATUSES / f"{kind}.yaml").read_text())
    return found


def as_recorded(obj: Object, words: dict[str, str]) -> Object:
    """`obj` without what differs from one recording to the next; `words` are replaced in every text."""
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    status = obj.get("status")
    kept = {**obj, "metadata": metadata | {name: text for name, text in _FIXED.items() if name in metadata}}
    if status is not None:
        kept["status"] = status | {name: "0" * len(status[name]) for name in _DIGESTS if name in status}
    found: Object = _replaced(kept, words)
    return found


def shape(obj: Object) -> Object:
    """What a health check may look at, and what people read first: equal for two statuses of one kind."""
    status, metadata = obj.get("status") or {}, obj["metadata"]
    return {
        "conditions": {each["type"]: (each["status"], each["reason"]) for each in status.get("conditions", ())},
        "parts of a condition": sorted({part for each in status.get("conditions", ()) for part in each}),
        "fields": sorted(set(status) - {"best"}),
        "generations": (metadata["generation"], status.get("observedGeneration")),
        "is deleting": "deletionTimestamp" in metadata,
        "stages": {each["id"]: each["state"] for each in status.get("stages", ())},
        "annotations": sorted(metadata.get("annotations") or ()),
    }


def _replaced(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _replaced(item, words) for name, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, words) for item in value]
    if isinstance(value, str):
        for word, instead in words.items():
            value = value.replace(word, instead)
        return _INSTANT.sub("2026-11-21T12:00:00Z", value)
    return value
