"""The progress object that a running worker leaves in the store: a view, never an input of a decision."""

from __future__ import annotations

import json

from warpctl import artifacts
from warpctl.errors import WarpctlError
from warpctl.spec.status import Progress
from warpctl.storage.store import Store

NAMES = frozenset({"done", "total", "unit", "doneAtStart", "elapsedSeconds", "at"})


def read_progress(store: Store, kind: str, key: str, attempt_id: str) -> Progress | None:
    """How far an attempt says it is; None when it has said nothing yet that can be read."""
    try:
        body = json.loads(store.read_or_none(artifacts.progress(kind, key, attempt_id)) or b"{}")
        return Progress(
            done=body["done"],
            total=body["total"],
            unit=body["unit"],
            done_at_start=body.get("doneAtStart", 0),
            elapsed_seconds=body["elapsedSeconds"],
            fields={name: value for name, value in body.items() if name not in NAMES},
        )
    except (OSError, ValueError, KeyError, TypeError, WarpctlError):  # a view: not there yet, or not worth an error
        return None
