"""Deleting a WarpRun whose deletionPolicy is Delete: its workers leave first, then what no other run wants is swept.

What was wanted is written down before the run's roots go, so a controller that dies in between goes on. The escape hatch is an
annotation: a store that is gone for good must not hold a WarpRun for ever.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime, timedelta

from warpctl import artifacts
from warpctl.storage.gc import Swept, plan_gc, sweep
from warpctl.storage.store import Store
from warpctl.storage.wanted import read_wanted


def delete_artifacts(store: Store, namespace: str, name: str, now: datetime) -> Swept:
    """Sweep every stage that this run wanted and no other run wants, and the run's own folder. May be repeated."""
    names = _wanted_names(store, namespace, name)
    store.delete(artifacts.wanted(namespace, name))
    swept = sweep(store, plan_gc(store, now=now, min_age=timedelta(0), only=names)) if names else Swept(0, 0, ())
    store.delete_tree(artifacts.run(namespace, name))
    return swept


def _wanted_names(store: Store, namespace: str, name: str) -> Collection[tuple[str, str]]:
    path = artifacts.deleting(namespace, name)
    wanted = read_wanted(store, namespace, name)
    if wanted is None:
        noted = store.read_or_none(path)
        return {(kind, key) for kind, key in json.loads(noted)} if noted else set()
    names = {(str(stage.kind), stage.key) for stage in wanted.stages}
    store.write(path, json.dumps(sorted(names)).encode())
    return names
