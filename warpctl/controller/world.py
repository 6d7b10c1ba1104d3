"""What the controller knows of the cluster without asking: WarpRuns, Jobs and pods, kept up to date and indexed.

Every change asks for a pass of the runs that it matters to: the owner of a Job, and whoever waits for the same stage.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from warpctl import names
from warpctl.controller.failed_creates import FailedCreates
from warpctl.executors.job_facts import JobFacts, PodFacts, attempt, job_facts, pod_facts
from warpctl.kube.api import Api, Object
from warpctl.kube.reflector import Reflector
from warpctl.kube.resources import JOBS, PODS, WARPRUNS
from warpctl.plan.observed import AttemptState

RunKey = tuple[str, str]
"""Namespace and name of a WarpRun."""

MANAGED = f"{names.MANAGED_BY}={names.MANAGER}"
VERBS = (names.RETRY, names.CANCEL, names.REFRESH, names.ABANDON)


@dataclass(frozen=True, slots=True)
class WarpRunObject:
    """A WarpRun as the API server has it. `body` is without managedFields and status, which are half of its size."""

    namespace: str
    name: str
    uid: str
    generation: int
    version: str
    body: Mapping[str, Any]
    status: Mapping[str, Any]
    annotations: Mapping[str, str]
    finalizers: tuple[str, ...]
    is_deleting: bool

    @property
    def key(self) -> RunKey:
        return self.namespace, self.name

    @property
    def verbs(self) -> dict[str, str]:
        """The annotations that ask for something."""
        return {name: self.annotations[name] for name in VERBS if name in self.annotations}


def warp_run_object(obj: Object) -> WarpRunObject:
    """From a WarpRun as the API server sends it."""
    metadata = obj["metadata"]
    annotations = metadata.get("annotations") or {}
    kept = {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "labels": metadata.get("labels") or {},
        # What kubectl leaves there is the whole spec once more.
        "annotations": {name: text for name, text in annotations.items() if name in VERBS},
    }
    return WarpRunObject(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        version=metadata["resourceVersion"],
        body={"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": kept, "spec": obj.get("spec") or {}},
        status=obj.get("status") or {},
        annotations=kept["annotations"],
        finalizers=tuple(metadata.get("finalizers") or ()),
        is_deleting="deletionTimestamp" in metadata,
    )


@dataclass
class Cluster:
    """Three lists and their indexes. Safe to use from many threads."""

    api: Api
    enqueue: Callable[[RunKey], None]
    namespace: str = ""
    """"": all namespaces."""
    on_restart: Callable[[str], None] | None = None
    silence_seconds: float = 90.0
    on_end: Callable[[JobFacts, tuple[PodFacts, ...], datetime], None] | None = None
    """Told of every Job that is seen to end, once, with its pods and the time."""
    runs: Reflector[WarpRunObject] = field(init=False)
    jobs: Reflector[JobFacts] = field(init=False)
    pods: Reflector[PodFacts] = field(init=False)
    _failed_creates: FailedCreates = field(init=False)
    _jobs_by_owner: defaultdict[str, dict[str, JobFacts]] = field(default_factory=lambda: defaultdict(dict))
    _jobs_by_stage: defaultdict[tuple[str, str, str], dict[str, JobFacts]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    _pods_by_job: defaultdict[str, dict[str, PodFacts]] = field(default_factory=lambda: defaultdict(dict))
    _run_of_job: dict[str, JobFacts] = field(default_factory=dict)
    _waiting_for: defaultdict[tuple[str, str, str], set[RunKey]] = field(default_factory=lambda: defaultdict(set))
    _ended_gpu_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._failed_creates = FailedCreates(self.api)
        silence = self.silence_seconds
        common: dict[str, Any] = {
            "namespace": self.namespace,
            "on_restart": self.on_restart,
            "silence_seconds": silence,
        }
        self.runs = Reflector(self.api, WARPRUNS, warp_run_object, self._on_run, **common)
        self.jobs = Reflector(self.api, JOBS, job_facts, self._on_job, labels=MANAGED, **common)
        self.pods = Reflector(self.api, PODS, pod_facts, self._on_pod, labels=MANAGED, **common)

    def reflectors(self) -> tuple[Reflector[Any], ...]:
        return self.runs, self.jobs, self.pods

    def jobs_of(self, namespace: str, *, owner_uid: str, keys: frozenset[str], storage: str) -> list[JobFacts]:
        """Jobs of this owner, and Jobs of these stages of anybody in the namespace, all with this storage."""
        with self._lock:
            found = dict(self._jobs_by_owner.get(owner_uid, {}))
            for key in keys:
                found |= self._jobs_by_stage.get((namespace, key, storage), {})
        return [job for job in found.values() if job.storage == storage]

    def all_jobs_of(self, owner_uid: str) -> list[JobFacts]:
        """Jobs of this owner, whatever their storage."""
        with self._lock:
            return list(self._jobs_by_owner.get(owner_uid, {}).values())

    def pods_of(self, job_uid: str) -> list[PodFacts]:
        """Pods of one Job."""
        with self._lock:
            return list(self._pods_by_job.get(job_uid, {}).values())

    def why_refused(self, namespace: str, job_uid: str) -> str:
        """Why pods of this Job could not be created; asked of the API server, at a bounded rate."""
        return self._failed_creates.of(namespace, job_uid)

    def accept_job(self, job: Object) -> JobFacts:
        """Take a Job that was just created as seen."""
        return self.jobs.accept(job)

    def wait_for(self, run: RunKey, storage: str, keys: set[str]) -> None:
        """From now on changes of these stages' Jobs, whoever owns them, ask for a pass of `run` too."""
        with self._lock:
            for key in keys:
                self._waiting_for[run[0], key, storage].add(run)

    def take_ended_gpu_seconds(self, owner_uid: str) -> float:
        """GPU-seconds of this owner's Jobs that have gone since the last call."""
        with self._lock:
            return self._ended_gpu_seconds.pop(owner_uid, 0.0)

    def return_ended_gpu_seconds(self, owner_uid: str, seconds: float) -> None:
        """What was taken could not be written down."""
        with self._lock:
            self._ended_gpu_seconds[owner_uid] += seconds

    def _on_run(self, before: WarpRunObject | None, after: WarpRunObject | None) -> None:
        seen = before or after
        if seen is None:
            return
        if after is None:
            self._forget_run(seen)
        is_own_status = (
            before is not None
            and after is not None
            and before.uid == after.uid
            and before.generation == after.generation
            and before.body == after.body
            and before.is_deleting == after.is_deleting
        )
        if not is_own_status:
            self.enqueue(seen.key)

    def _on_job(self, before: JobFacts | None, after: JobFacts | None) -> None:
        job = after or before
        if job is None or before == after:
            return
        stage = (job.namespace, job.key, job.storage)
        with self._lock:
            self._tell_of_end(before, after)
            if after is None:
                self._charge(job)
                _drop(self._jobs_by_owner, job.owner_uid, job.name)
                _drop(self._jobs_by_stage, stage, job.name)
                self._run_of_job.pop(job.uid, None)
                self._pods_by_job.pop(job.uid, None)
            else:
                self._jobs_by_owner[job.owner_uid][job.name] = after
                self._jobs_by_stage[stage][job.name] = after
                self._run_of_job[job.uid] = after
            concerned = {(job.namespace, job.run), *self._waiting_for.get(stage, ())}
        for run in concerned:
            self.enqueue(run)

    def _on_pod(self, before: PodFacts | None, after: PodFacts | None) -> None:
        pod = after or before
        if pod is None or before == after:
            return
        with self._lock:
            job = self._run_of_job.get(pod.job_uid)
            if after is not None:
                self._pods_by_job[pod.job_uid][pod.name] = after
            elif job is not None and pod.started_at is not None:
                # A Job that is deleted goes after its pods: what they have cost, and how they ended, is known to the last.
                gone = replace(pod, is_running=False, waits_for="", gone_at=self.api.clock.now())
                self._pods_by_job[pod.job_uid][pod.name] = gone
            else:
                _drop(self._pods_by_job, pod.job_uid, pod.name)
        if job is not None:
            self.enqueue((job.namespace, job.run))

    def _forget_run(self, run: WarpRunObject) -> None:
        with self._lock:
            self._ended_gpu_seconds.pop(run.uid, None)
            for stage in [stage for stage, waiting in self._waiting_for.items() if run.key in waiting]:
                self._waiting_for[stage].discard(run.key)
                if not self._waiting_for[stage]:
                    del self._waiting_for[stage]

    def _tell_of_end(self, before: JobFacts | None, after: JobFacts | None) -> None:
        """One that is gone, or about to go, without an end of its own was stopped. It ends once, whatever comes after."""
        if self.on_end is None or before is None or before.is_deleting or before.state is not AttemptState.ACTIVE:
            return
        job = after or before
        if after is None or after.is_deleting or after.state is not AttemptState.ACTIVE:
            self.on_end(job, tuple(self._pods_by_job.get(job.uid, {}).values()), self.api.clock.now())

    def _charge(self, job: JobFacts) -> None:
        """Remember what a Job that has gone has cost."""
        if job.gpus:
            pods = self._pods_by_job.get(job.uid, {}).values()
            self._ended_gpu_seconds[job.owner_uid] += attempt(job, pods, self.api.clock.now()).gpu_seconds


def _drop(index: defaultdict[Any, dict[str, Any]], key: object, name: str) -> None:
    """Remove an entry, and its bucket with the last one: the index must not grow with everything that ever was."""
    bucket = index.get(key)
    if bucket is not None:
        bucket.pop(name, None)
        if not bucket:
            del index[key]
