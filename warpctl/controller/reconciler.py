"""One pass of one WarpRun: look, let the engine plan and perform, write the status once, send its Events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import ValidationError

from warpctl import names
from warpctl.controller.deletion import delete_artifacts
from warpctl.controller.events import EventRecorder
from warpctl.controller.ignored import ignored_verbs, retry_instant
from warpctl.controller.lease import NotLeaderError
from warpctl.controller.status_update import (
    Facts,
    Transition,
    best_of,
    cluster_status,
    number,
    refused_status,
    spec_digest,
    transitions,
    unavailable_status,
    verbs_digest,
)
from warpctl.controller.world import Cluster, RunKey, WarpRunObject
from warpctl.engine import Engine
from warpctl.errors import CorruptError, StoreDeniedError, StoreUnavailableError, WarpctlError
from warpctl.executors.job_facts import JobFacts
from warpctl.executors.kubernetes import KubernetesExecutor
from warpctl.kube.api import Api
from warpctl.kube.errors import ClusterError
from warpctl.kube.resources import JOBS, WARPRUNS
from warpctl.plan.observed import AttemptState
from warpctl.render.job import expiry
from warpctl.render.tenancy import refusals
from warpctl.reports.summary import load_front
from warpctl.spec.cluster_status import Best
from warpctl.spec.compute import DeletionPolicy
from warpctl.spec.controller_config import ControllerConfig
from warpctl.spec.reasons import EventReason, Reason
from warpctl.spec.status import SUCCEEDED, RunStatus, StageState
from warpctl.spec.warp_run import WarpRun
from warpctl.storage.store import Store

Status = dict[str, Any]

SOON_SECONDS = 0.05
ASK_AGAIN_SECONDS = 15.0
"""What no watch tells of: why there is no pod, whether a quota has room now."""


class Stores(Protocol):
    """Opens stores; one object a URI, so that connections are shared."""

    def open(self, uri: str) -> Store: ...


@dataclass
class Driven:
    """What is kept of one run between passes, to spare requests."""

    engine: Engine
    executor: KubernetesExecutor
    report: str = ""
    best: Best | None = None


@dataclass
class Reconciler:
    """Passes of all runs; each key is worked on by one thread at a time."""

    api: Api
    cluster: Cluster
    stores: Stores
    config: ControllerConfig
    events: EventRecorder
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _driven: dict[str, Driven] = field(default_factory=dict)

    def reconcile(self, key: RunKey) -> float | None:
        """One pass; returns the seconds until the next one is wanted, None when only a change can matter.

        StoreUnavailableError and ClusterError ask for another pass after a pause.
        """
        run_object = self.cluster.runs.item(*key)
        if run_object is None:
            self._forget_absent(key)
            return None
        if run_object.is_deleting:
            return self._delete(run_object)
        self._let_jobs_expire(run_object)
        if _is_settled(run_object):
            return None
        try:
            run = WarpRun.model_validate(run_object.body)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            self._refuse(run_object, Reason.INVALID_SPEC, f"{where}: {first['msg']}")
            return None
        refused = refusals(run, self.config)
        if refused:
            self._refuse(run_object, Reason.NOT_ALLOWED, "; ".join(str(each) for each in refused[:3]))
            return None
        self._keep_finalizer(run_object, run)
        try:
            return self._drive(run_object, run)
        except StoreUnavailableError as error:
            message = f"{error.message}; workers go on, it is asked again"
            after = unavailable_status(
                message,
                run_object.status,
                generation=run_object.generation,
                handled=verbs_digest(run_object.verbs),
                now=self.now(),
            )
            self._write(run_object, after)
            self._stop_if_asked(run_object)
            raise
        except (ClusterError, NotLeaderError):
            raise
        except WarpctlError as error:
            text = f"{error.message} ({error.hint})" if error.hint else error.message
            self._refuse(run_object, _reason_of(error), text)
            return float(self.config.resync_seconds)

    def _drive(self, run_object: WarpRunObject, run: WarpRun) -> float | None:
        driven = self._driven_for(run_object, run)
        now = self.now()
        ended = self.cluster.take_ended_gpu_seconds(run_object.uid)
        earlier = number(run_object.status.get("endedGpuSeconds")) + ended
        known = len(driven.executor.shared_keys)
        try:
            driven.engine.earlier_gpu_seconds = earlier
            try:
                status = driven.engine.tick(now)
            finally:
                self.cluster.wait_for(run_object.key, driven.executor.store.root, driven.executor.shared_keys)
            driven.executor.tidy()
            self._look_at_report(driven, run)
            facts = Facts(
                generation=run_object.generation,
                spec_digest=spec_digest(run_object.body["spec"]),
                handled=verbs_digest(run_object.verbs),
                ended_gpu_seconds=earlier,
                best=driven.best,
                report=driven.report,
                ignored=ignored_verbs(run_object.verbs, now),
            )
            self._write(run_object, cluster_status(status, facts, run_object.status, now))
        except BaseException:
            self.cluster.return_ended_gpu_seconds(run_object.uid, ended)
            raise
        if status.is_true(SUCCEEDED):
            self._driven.pop(run_object.uid, None)
            return None
        if len(driven.executor.shared_keys) > known:
            return SOON_SECONDS  # somebody else's Job has the stage: it is there to be seen
        return self._next_pass(status, driven, now)

    def _next_pass(self, status: RunStatus, driven: Driven, now: datetime) -> float:
        """Events bring most passes; time alone brings retries, progress, and what nobody told us."""
        waits = [float(self.config.resync_seconds)]
        for stage in status.stages:
            if stage.state is StageState.RETRYING and stage.retry_at:
                waits.append((datetime.fromisoformat(stage.retry_at) - now).total_seconds() + SOON_SECONDS)
            if stage.state is StageState.RUNNING:
                waits.append(self._progress_pause())
        if driven.executor.is_waiting_for_pods() or driven.engine.refused:
            waits.append(ASK_AGAIN_SECONDS)
        return max(SOON_SECONDS, min(waits))

    def _progress_pause(self) -> float:
        """Looking at progress is worth a bounded share of the store and of this process, however many runs are at work."""
        return max(float(self.config.progress_seconds), len(self._driven) / self.config.progress_passes_per_second)

    def _driven_for(self, run_object: WarpRunObject, run: WarpRun) -> Driven:
        driven = self._driven.get(run_object.uid)
        store = self.stores.open(run.spec.storage.uri)
        if driven is None or driven.engine.store.root != store.root:
            executor = KubernetesExecutor(run, run_object.uid, self.api, self.cluster, self.config, store, now=self.now)
            driven = self._driven[run_object.uid] = Driven(Engine(run, executor, store), executor)
        driven.engine.run = driven.executor.run = run
        driven.executor.config = self.config
        since = retry_since(run_object, self.now())
        if driven.engine.retry_since != since:
            driven.engine.look_anew()  # a stage may have failed because what it reads was lost
        driven.engine.retry_since = since
        return driven

    def _look_at_report(self, driven: Driven, run: WarpRun) -> None:
        shown = driven.engine.views.shown()
        if shown and shown != driven.report:
            front = load_front(driven.engine.store, namespace=run.metadata.namespace, name=run.metadata.name)
            driven.best, driven.report = best_of(front), shown

    def _refuse(self, run_object: WarpRunObject, reason: str, message: str) -> None:
        """Nothing new is started; what runs already is left to end, and a mended spec goes on from there."""
        after = refused_status(
            reason,
            message,
            run_object.status,
            generation=run_object.generation,
            handled=verbs_digest(run_object.verbs),
            now=self.now(),
        )
        self._write(run_object, after)
        self._stop_if_asked(run_object)

    def _stop_if_asked(self, run_object: WarpRunObject) -> None:
        """Suspend and cancel are obeyed though nothing can be planned: they ask for less, never for more."""
        if run_object.body["spec"].get("suspend") is True or run_object.annotations.get(names.CANCEL):
            active = [job for job in self.cluster.all_jobs_of(run_object.uid) if job.state is AttemptState.ACTIVE]
            self._ask_to_go(active)

    def _ask_to_go(self, jobs: Iterable[JobFacts]) -> None:
        """Delete Jobs, each of which stays until its pods have saved and gone."""
        for job in jobs:
            if not job.is_deleting:
                self.api.delete(JOBS, job.namespace, job.name, uid=job.uid, propagation="Foreground")

    def _write(self, run_object: WarpRunObject, after: Status) -> None:
        """The one status write of a pass, only over the version that was read, only when something has changed."""
        if after == run_object.status:
            return
        # A merge patch keeps what it does not name: what has gone is named as null.
        gone = {name: None for name in run_object.status if name not in after}
        body = {"metadata": {"resourceVersion": run_object.version}, "status": gone | after}
        try:
            written = self.api.patch(WARPRUNS, run_object.namespace, run_object.name, body, subresource="status")
        except ClusterError as error:
            if error.is_absent:
                return
            raise
        self.cluster.runs.accept(written)
        for transition in transitions(run_object.status, after):
            self.events.send(run_object, transition)

    def _keep_finalizer(self, run_object: WarpRunObject, run: WarpRun) -> None:
        wanted = run.spec.deletion_policy is DeletionPolicy.DELETE
        if wanted != (names.FINALIZER in run_object.finalizers):
            self._write_finalizers(run_object, is_wanted=wanted)

    def _write_finalizers(self, run_object: WarpRunObject, *, is_wanted: bool) -> None:
        others = [name for name in run_object.finalizers if name != names.FINALIZER]
        finalizers = [*others, names.FINALIZER] if is_wanted else others
        body = {"metadata": {"resourceVersion": run_object.version, "finalizers": finalizers}}
        try:
            written = self.api.patch(WARPRUNS, run_object.namespace, run_object.name, body)
        except ClusterError as error:
            if error.is_absent:
                return
            raise
        self.cluster.runs.accept(written)

    def _delete(self, run_object: WarpRunObject) -> float | None:
        """Children go with their owner; only artifacts that shall go too need something done."""
        if names.FINALIZER not in run_object.finalizers:
            return None
        if run_object.annotations.get(names.ABANDON) != "true":
            jobs = self.cluster.all_jobs_of(run_object.uid)
            self._ask_to_go(jobs)
            if jobs:
                return ASK_AGAIN_SECONDS  # their going asks for a pass too
            if not self._sweep(run_object):
                return float(self.config.resync_seconds)
        self._write_finalizers(run_object, is_wanted=False)
        self._driven.pop(run_object.uid, None)
        return None

    def _sweep(self, run_object: WarpRunObject) -> bool:
        """Delete the artifacts of a run that is going, where it may be in that store at all; False when nobody can say where they
        are. StoreUnavailableError when they could not be deleted now.
        """
        try:
            run = WarpRun.model_validate(run_object.body)
        except ValidationError as error:
            hint = f"annotate it with {names.ABANDON}=true to delete it without its artifacts"
            first = f"this version cannot read its spec: {error.errors()[0]['msg']}"
            self.events.send(run_object, Transition(True, EventReason.ARTIFACTS_NOT_DELETED, f"{first} ({hint})"))
            return False
        refused = refusals(run, self.config)
        if refused:
            self.events.send(
                run_object, Transition(True, EventReason.ARTIFACTS_NOT_DELETED, f"not allowed: {refused[0]}")
            )
            return True
        try:
            store = self.stores.open(run.spec.storage.uri)
            swept = delete_artifacts(store, run_object.namespace, run_object.name, self.now())
        except WarpctlError as error:
            hint = f"annotate it with {names.ABANDON}=true to delete it without its artifacts"
            self.events.send(
                run_object, Transition(True, EventReason.ARTIFACTS_NOT_DELETED, f"{error.message} ({hint})")
            )
            raise StoreUnavailableError(error.message, hint=hint) from error
        said = f"{swept.num_files} files, {swept.num_bytes} bytes of {store.root} are deleted"
        self.events.send(run_object, Transition(False, EventReason.ARTIFACTS_DELETED, said))
        return True

    def _let_jobs_expire(self, run_object: WarpRunObject) -> None:
        """Succeeded Jobs go some time after their end; a failed one stays: it is a fact that its run still counts."""
        for job in self.cluster.all_jobs_of(run_object.uid):
            if job.state is not AttemptState.COMPLETE or job.has_expiry or job.is_deleting:
                continue
            try:
                self.cluster.accept_job(self.api.patch(JOBS, job.namespace, job.name, expiry(self.config)))
            except ClusterError as error:
                if not error.is_absent:
                    raise

    def _forget_absent(self, key: RunKey) -> None:
        for uid, driven in list(self._driven.items()):
            metadata = driven.engine.run.metadata
            if (metadata.namespace, metadata.name) == key:
                del self._driven[uid]


def retry_since(run_object: WarpRunObject, now: datetime) -> datetime | None:
    """The instant of the retry annotation; one that is none asks for nothing."""
    return retry_instant(run_object.annotations.get(names.RETRY, ""), now)


def _reason_of(error: WarpctlError) -> Reason:
    """Why a run cannot be driven now."""
    if isinstance(error, StoreDeniedError):
        return Reason.STORE_DENIED
    return Reason.STORE_CORRUPT if isinstance(error, CorruptError) else Reason.PASS_FAILED


def _is_settled(run_object: WarpRunObject) -> bool:
    """A finished run is not looked at again, however often the controller starts, until something is asked of it."""
    status = run_object.status
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    succeeded = conditions.get(SUCCEEDED, {})
    is_true = bool(succeeded.get("status") == "True")
    is_of_this_spec = bool(succeeded.get("observedGeneration") == run_object.generation)
    return is_true and is_of_this_spec and bool(status.get("handled", "") == verbs_digest(run_object.verbs))
