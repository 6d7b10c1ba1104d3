"""Plays the containers of KWOK's pods: reads what each is told from its environment, as a kubelet would hand it over, publishes,
and ends the pod with an exit code. What is published is a small file, the same for the same stage, so digests can be compared.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from tests.cluster.harness.kwok import PREFIX, kwok_annotations
from warpctl import names
from warpctl.kube.api import Api, Object
from warpctl.kube.errors import ClusterError, ClusterUnavailableError
from warpctl.kube.reflector import Reflector
from warpctl.kube.resources import PODS
from warpctl.spec.stage_input import ENVIRONMENT_VARIABLE, StageInput
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store

WAITS = kwok_annotations(never_finish=True)
"""For spec.compute.*.podTemplate.annotations: pods run until a stand-in ends them."""
REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


@dataclass(frozen=True)
class End:
    """How a container ends; `publishes` is False for one that fails or lies."""

    exit_code: int = 0
    publishes: bool = True
    reason: str = ""
    message: str = ""


Decide = Callable[[StageInput, int], "End | None"]
"""Told what the worker is told and which start of the stage this is (from 1); None: it goes on running."""


def always_good(told: StageInput, number: int) -> End:
    return End()


@dataclass
class StandInWorkers:
    """Context manager: while it is open, pods in `namespace` do their work."""

    api: Api
    namespace: str
    decide: Decide = always_good
    seconds: float = 0.0
    """How long each works."""
    started: Counter[str] = field(default_factory=Counter)
    """Starts of each stage key."""
    published: Counter[str] = field(default_factory=Counter)
    """Commits of each stage key by a worker of ours."""
    stages: dict[str, str] = field(default_factory=dict)
    """Stage key -> stage id of the first start."""
    concurrent: list[str] = field(default_factory=list)
    """Stages that had workers of two attempts at once: must stay empty."""
    _live: dict[str, tuple[str, str]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        reflector: Reflector[Object] = Reflector(
            self.api, PODS, lambda pod: pod, self._changed, self.namespace, f"{names.MANAGED_BY}={names.MANAGER}"
        )
        thread = threading.Thread(target=reflector.run, args=(self._stop,), daemon=True)
        thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.api.close()

    def _changed(self, before: Object | None, after: Object | None) -> None:
        pod = after or before
        assert pod is not None
        uid = pod["metadata"]["uid"]
        if after is None:
            with self._lock:
                self._live.pop(uid, None)
            return
        if after["status"].get("phase") in ("Succeeded", "Failed"):
            with self._lock:
                self._live.pop(uid, None)
            return
        if after["status"].get("phase") != "Running" or "deletionTimestamp" in after["metadata"]:
            return
        with self._lock:
            if uid in self._live:
                return
            told = told_to(after)
            job = after["metadata"]["labels"][names.JOB_UID_LABEL]
            # One stage in two stores is two computations.
            place = f"{told.storage}/{told.key}"
            if any(other_place == place and other != job for other_place, other in self._live.values()):
                self.concurrent.append(told.stage_id)
            self._live[uid] = (place, job)
            self.started[told.key] += 1
            self.stages.setdefault(told.key, told.stage_id)
            number = self.started[told.key]
        threading.Thread(target=self._work, args=(after, told, number), daemon=True).start()

    def _work(self, pod: Object, told: StageInput, number: int) -> None:
        if self._stop.wait(self.seconds):
            return
        end = self.decide(told, number)
        if end is None:
            return
        if end.publishes and end.exit_code == 0:
            self.publish(told)
        self.finish(pod["metadata"]["name"], end)

    def num_live(self) -> int:
        """Pods that run now."""
        with self._lock:
            return len(self._live)

    def num_published(self, stage_id: str) -> int:
        """Commits of a stage by a worker of ours."""
        with self._lock:
            return sum(count for key, count in self.published.items() if self.stages[key] == stage_id)

    def publish(self, told: StageInput) -> None:
        """What a worker leaves in the store."""
        publication = Publication(Store.open(told.storage), told, now=lambda: datetime.now(UTC))
        publication.write_file("model.safetensors", f"weights of {told.key}".encode())
        publication.write_file("metrics.jsonl", b"{}\n")
        if publication.commit().attempt_id == told.attempt_id:
            with self._lock:
                self.published[told.key] += 1

    def finish(self, pod: str, end: End) -> None:
        """End a pod's container."""
        values: dict[str, Any] = {f"{PREFIX}/finish": None}
        values |= kwok_annotations(exit_code=end.exit_code, reason=end.reason, message=end.message)
        while not self._stop.is_set():
            try:
                self.api.patch(PODS, self.namespace, pod, {"metadata": {"annotations": values}})
            except ClusterUnavailableError:
                self._stop.wait(0.5)  # a kubelet goes on trying too
                continue
            except ClusterError as error:
                if not (error.is_absent or self._stop.is_set()):
                    raise
            return


def told_to(pod: Object) -> StageInput:
    """The StageInput of a pod, its environment filled in as a kubelet does."""
    fields = {
        f"metadata.labels['{names.JOB_UID_LABEL}']": pod["metadata"]["labels"][names.JOB_UID_LABEL],
        f"metadata.annotations['{names.INDEX_LABEL}']": pod["metadata"]["annotations"][names.INDEX_LABEL],
        "metadata.uid": pod["metadata"]["uid"],
    }
    values: dict[str, str] = {}
    for variable in pod["spec"]["containers"][0]["env"]:
        if "valueFrom" in variable:
            source = variable["valueFrom"].get("fieldRef")
            if source:
                values[variable["name"]] = fields.get(source["fieldPath"], "")
        else:
            values[variable["name"]] = REFERENCE.sub(lambda found: _filled(found, values), variable.get("value", ""))
    return StageInput.from_environment({ENVIRONMENT_VARIABLE: values[ENVIRONMENT_VARIABLE]})


def _filled(found: re.Match[str], values: dict[str, str]) -> str:
    return "$" if found[0] == "$$" else values.get(found[1], found[0])
