"""Runs workers as Jobs: one Job is one attempt. Observes from lists that are kept up to date, so looking costs no request.

Names are deterministic, so a stale view is harmless: creating an attempt that is there already is answered with a conflict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from warpctl import names
from warpctl.executors.base import StartRefusedError
from warpctl.executors.job_facts import JobFacts, PodFacts, attempt
from warpctl.executors.progress import read_progress
from warpctl.kube.api import Api, Object
from warpctl.kube.errors import ClusterError
from warpctl.kube.resources import JOBS, SERVICES
from warpctl.plan.actions import Start
from warpctl.plan.observed import Attempt, AttemptState
from warpctl.render.job import render_job
from warpctl.render.service import render_service
from warpctl.spec.controller_config import ControllerConfig
from warpctl.spec.status import Progress
from warpctl.spec.warp_run import WarpRun
from warpctl.storage.store import Store

REFUSED_AFTER = timedelta(seconds=10)
"""A Job without a pod for this long is asked about: a quota, an admission policy."""


class World(Protocol):
    """What is known of Jobs and pods without asking."""

    def jobs_of(self, namespace: str, *, owner_uid: str, keys: frozenset[str], storage: str) -> list[JobFacts]:
        """Jobs of this owner, and Jobs of these stages of anybody in the namespace, all with this storage."""
        ...

    def all_jobs_of(self, owner_uid: str) -> list[JobFacts]:
        """Jobs of this owner, whatever their storage."""
        ...

    def pods_of(self, job_uid: str) -> list[PodFacts]:
        """Pods of one Job."""
        ...

    def why_refused(self, namespace: str, job_uid: str) -> str:
        """Why pods of this Job could not be created; "" when nobody says."""
        ...

    def accept_job(self, job: Object) -> JobFacts:
        """Take a Job that was just created as seen."""
        ...


@dataclass
class KubernetesExecutor:
    """The attempts of one WarpRun. `world` is shared by all runs; `config` may be exchanged between passes."""

    run: WarpRun
    uid: str
    api: Api
    world: World
    config: ControllerConfig
    store: Store
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    shared_keys: set[str] = field(default_factory=set)
    """Stages that another run of the namespace has an attempt of."""
    _served: set[str] = field(default_factory=set)
    _forgotten: set[str] = field(default_factory=set)
    """Uids of Jobs that are asked to go; the watch tells of it later."""
    _progress: dict[str, tuple[datetime, Progress | None]] = field(default_factory=dict)

    def attempts(self) -> dict[str, tuple[Attempt, ...]]:
        """All attempts, other runs' of the same stages among them; those cost this run nothing."""
        now = self.now()
        found: dict[str, list[Attempt]] = {}
        for job in self._jobs():
            pods = self.world.pods_of(job.uid)
            refused = self._why_refused(job, now) if all(pod.gone_at for pod in pods) else ""
            seen = attempt(job, pods, now, refused=refused)
            if job.owner_uid != self.uid:
                self.shared_keys.add(job.key)
                seen = replace(seen, gpu_seconds=0.0, is_foreign=True)
            if job.uid in self._forgotten:
                seen = replace(seen, is_stopping=True)
            if seen.state is AttemptState.ACTIVE and not seen.waits_for:
                seen = replace(seen, progress=self._progress_of(job, seen, now))
            found.setdefault(job.key, []).append(seen)
        self._forget_old({each.attempt_id for group in found.values() for each in group})
        return {key: tuple(sorted(group, key=lambda each: each.number)) for key, group in found.items()}

    def start(self, start: Start) -> bool:
        """Create the attempt's Job; False when somebody has just done so. StartRefusedError where the cluster does not want it."""
        namespace = self.run.metadata.namespace
        job = render_job(self.run, start, storage=self.store.root, uid=self.uid, config=self.config)
        try:
            created = self.api.create(JOBS, namespace, job)
        except ClusterError as error:
            if error.is_refused:
                raise StartRefusedError(error.message) from error
            if not error.is_taken:  # another conflict, such as of a quota, has made nothing: it is tried again
                raise
            self.shared_keys.add(start.stage.key)
            return False
        self.world.accept_job(created)
        return True

    def tidy(self) -> None:
        """What belongs to Jobs that are there: a Service where several pods must find each other, none of another store.

        Apart from `start`, so that a controller which dies between the two leaves nothing half made.
        """
        for job in self.world.all_jobs_of(self.uid):
            if job.state is not AttemptState.ACTIVE or job.is_deleting:
                continue
            if job.storage != self.store.root:
                # The spec names another store now: what this one would publish is wanted by nobody.
                self._delete(job)
            elif job.nodes > 1 and job.uid not in self._served:
                self._create_service(job)
                self._served.add(job.uid)

    def _create_service(self, job: JobFacts) -> None:
        service = render_service(job.namespace, job_name=job.name, job_uid=job.uid, labels=job.labels)
        try:
            self.api.create(SERVICES, job.namespace, service)
        except ClusterError as error:
            if not error.is_taken:
                raise

    def stop(self, attempt: Attempt, reason: str) -> None:
        """Delete the attempt's Job, which stays until its pods have saved and gone. Another run's Job is left to it."""
        del reason  # the run's status says it
        for job in self._jobs():
            if (
                job.key == attempt.key
                and job.number == attempt.number
                and job.owner_uid == self.uid
                and not job.is_deleting
            ):
                self._delete(job)

    def forget(self, key: str) -> None:
        """Delete finished Jobs of a stage whose artifact is gone."""
        for job in self._jobs():
            if job.key == key and job.owner_uid == self.uid and job.state is not AttemptState.ACTIVE:
                self._forgotten.add(job.uid)
                self._delete(job)

    def is_waiting_for_pods(self) -> bool:
        """Whether some Job has no pod yet: nobody tells us why, so it is asked."""
        return any(
            job.state is AttemptState.ACTIVE
            and not job.is_deleting
            and all(pod.gone_at for pod in self.world.pods_of(job.uid))
            for job in self._jobs()
        )

    def _jobs(self) -> list[JobFacts]:
        return self.world.jobs_of(
            self.run.metadata.namespace, owner_uid=self.uid, keys=frozenset(self.shared_keys), storage=self.store.root
        )

    def _delete(self, job: JobFacts) -> None:
        self.api.delete(JOBS, job.namespace, job.name, uid=job.uid, propagation="Foreground")

    def _progress_of(self, job: JobFacts, seen: Attempt, now: datetime) -> Progress | None:
        """What the worker left in the store, read at a bounded rate; a view, never worth an error."""
        known = self._progress.get(seen.attempt_id)
        pause = timedelta(seconds=self.config.progress_seconds)
        if known is not None and now - known[0] < pause:
            return known[1]
        if known is None:
            # Nothing can be there yet: the first look comes one pause after the start.
            self._progress[seen.attempt_id] = (max(seen.started_at, now - pause), None)
            if now - seen.started_at < pause:
                return None
        progress = read_progress(self.store, names.kind_of_job(job.name), job.key, seen.attempt_id)
        self._progress[seen.attempt_id] = (now, progress)
        return progress

    def _why_refused(self, job: JobFacts, now: datetime) -> str:
        """Why the Job controller could not create pods (quota, admission), once that takes longer than it should."""
        if job.state is not AttemptState.ACTIVE or job.is_suspended or now - job.created_at < REFUSED_AFTER:
            return ""
        return self.world.why_refused(job.namespace, job.uid)

    def _forget_old(self, alive: set[str]) -> None:
        for attempt_id in [each for each in self._progress if each not in alive]:
            del self._progress[attempt_id]
