"""Every status that a WarpRun ever had, as a watch tells of it, and what has to hold for each and from one to the next.

A user, a health check or `kubectl wait` may look at any moment; so a status that was wrong for one write was wrong.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from warpctl.kube.api import Api, Object
from warpctl.kube.errors import ClusterError
from warpctl.kube.resources import WARPRUNS

KINDS = {"Ready", "Reconciling", "Stalled", "Suspended", "Succeeded"}
CLOCKS_DIFFER = timedelta(seconds=3)
"""Stamps are cut to seconds, and the API server's clock is read from its answers."""


@dataclass
class StatusHistory:
    """Context manager: while it is open, the WarpRuns of a namespace are watched; leaving it looks at them once more."""

    api: Api
    namespace: str
    versions: defaultdict[str, list[Object]] = field(default_factory=lambda: defaultdict(list))
    """WarpRun's uid -> its versions, oldest first."""
    _pardoned: set[str] = field(default_factory=set)
    _seen: set[tuple[str, str]] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.api.close()
        assert self._thread is not None
        self._thread.join(20)
        with contextlib.suppress(ClusterError):  # a test may have taken the definition away, and every run with it
            for run in self.api.list(WARPRUNS, self.namespace).items:
                self._record(run)

    def pardon(self, run: Object) -> None:
        """This version is a test's own work: it is not looked at, and what comes after it is a beginning."""
        self._pardoned.add(run["metadata"]["resourceVersion"])

    def statuses(self) -> list[Object]:
        """All statuses so far."""
        return [run["status"] for versions in self.versions.values() for run in list(versions) if run.get("status")]

    def violations(self) -> list[str]:
        """What did not hold, in sentences; [] when all was well."""
        found: list[str] = []
        for versions in self.versions.values():
            part: list[Object] = []
            for run in versions:
                if run["metadata"]["resourceVersion"] in self._pardoned:
                    found += violations(part)
                    part = []
                else:
                    part.append(run)
            found += violations(part)
        return found

    def _watch(self) -> None:
        version = ""
        while not self._stop.is_set():
            try:
                if not version:
                    listed = self.api.list(WARPRUNS, self.namespace)
                    version = listed.resource_version
                    for run in listed.items:
                        self._record(run)
                watch = self.api.watch(
                    WARPRUNS, self.namespace, labels="", version=version, seconds=300, silence_seconds=90
                )
                for kind, run in watch:
                    version = run["metadata"]["resourceVersion"]
                    if kind in ("ADDED", "MODIFIED"):
                        self._record(run)
            except ClusterError as error:  # tests break the apiserver too
                version = "" if error.is_expired else version
                self._stop.wait(0.2)

    def _record(self, run: Object) -> None:
        seen = run["metadata"]["uid"], run["metadata"]["resourceVersion"]
        if seen not in self._seen:
            self._seen.add(seen)
            self.versions[seen[0]].append(run)


def violations(versions: list[Object], *, now: datetime | None = None) -> list[str]:
    """What does not hold in the versions of one WarpRun, oldest first."""
    latest = (now or datetime.now(UTC)) + CLOCKS_DIFFER
    found: list[str] = []
    before: Object | None = None
    for run in versions:
        if not run.get("status"):
            if before is not None:
                found.append("a status was there and is gone")
            continue
        texts = [*_alone(run, latest), *(_after(before["status"], run["status"]) if before else ())]
        found += [
            f"{run['metadata']['name']} at version {run['metadata']['resourceVersion']}: {each}" for each in texts
        ]
        before = run
    return found


def _alone(run: Object, latest: datetime) -> Iterator[str]:
    """What must hold for one status by itself."""
    status, generation = run["status"], run["metadata"]["generation"]
    conditions = {each["type"]: each for each in status.get("conditions", ())}
    if set(conditions) != KINDS:
        yield f"conditions are {sorted(conditions)}"
        return
    if status.get("observedGeneration", 0) > generation:
        yield f"observedGeneration {status['observedGeneration']} is above generation {generation}"
    created = datetime.fromisoformat(run["metadata"]["creationTimestamp"]) - CLOCKS_DIFFER
    for kind, each in conditions.items():
        if each["observedGeneration"] != status.get("observedGeneration"):
            yield f"{kind} speaks of generation {each['observedGeneration']}, the status of another"
        if not (each["reason"] and each["message"]):
            yield f"{kind} says no reason or message"
        if not created <= datetime.fromisoformat(each["lastTransitionTime"]) <= latest:
            yield f"{kind} changed at {each['lastTransitionTime']}, which is not in the run's life"
    is_true = {kind: each["status"] == "True" for kind, each in conditions.items()}
    if is_true["Ready"] != is_true["Succeeded"]:
        yield "Ready and Succeeded differ"
    if is_true["Succeeded"] and (is_true["Reconciling"] or is_true["Stalled"] or is_true["Suspended"]):
        yield "Succeeded, and yet something is to be done"
    if is_true["Suspended"] and is_true["Reconciling"]:
        yield "Suspended and Reconciling"
    if not any(is_true.values()):
        yield "no condition is True: nobody knows what it does"
    if is_true["Succeeded"] and status["stagesSucceeded"] != status["stagesTotal"]:
        yield f"Succeeded with {status['stagesText']} stages"


def _after(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """What must hold between a status and the next one."""
    if after.get("observedGeneration", 0) < before.get("observedGeneration", 0):
        yield f"observedGeneration went back to {after.get('observedGeneration')}"
    old = {each["type"]: each for each in before.get("conditions", ())}
    for each in after.get("conditions", ()):
        was = old.get(each["type"])
        if was is None:
            continue
        has_changed = was["status"] != each["status"]
        if not has_changed and was["lastTransitionTime"] != each["lastTransitionTime"]:
            yield f"{each['type']} did not change, its lastTransitionTime did"
        if each["lastTransitionTime"] < was["lastTransitionTime"]:
            yield f"lastTransitionTime of {each['type']} went back to {each['lastTransitionTime']}"
    # Another spec, a retry or a refresh begin anew.
    if any(before.get(name) != after.get(name) for name in ("observedGeneration", "handled")):
        return
    for name in ("stagesSucceeded", "iteration"):
        if after.get(name, 0) < before.get(name, 0):
            yield f"{name} went back from {before[name]} to {after.get(name)}"
    stalled = {stage["id"] for stage in before.get("stages", ()) if stage["state"] == "Stalled"}
    lost = stalled - {stage["id"] for stage in after.get("stages", ()) if stage["state"] == "Stalled"}
    if lost:
        yield f"{sorted(lost)} had failed for good, and no longer have"
    if _is_true(old, "Succeeded") and not _is_true({each["type"]: each for each in after["conditions"]}, "Succeeded"):
        yield "Succeeded was True and is not any more"


def _is_true(conditions: dict[str, Any], kind: str) -> bool:
    return bool(conditions.get(kind, {}).get("status") == "True")
