"""A run of a cluster, seen with the same eyes as one of this machine: its Jobs and pods instead of processes, its store.

Nothing is written. Whoever may list Jobs and pods of the namespace and read the store sees everything; who may not read the store
sees what the controller has written into the status.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from warpctl import __version__
from warpctl.cli.cluster import cluster, the_run
from warpctl.cli.cluster_events import events_text
from warpctl.cli.run_reference import RunReference
from warpctl.cli.state_folder import StateFolder, state_root
from warpctl.cli.terminal import warn
from warpctl.controller.reconciler import retry_since
from warpctl.controller.status_update import number
from warpctl.controller.world import MANAGED, Cluster, warp_run_object
from warpctl.engine import Engine
from warpctl.errors import StoreDeniedError, StoreUnavailableError, UserError, WarpctlError
from warpctl.executors.kubernetes import KubernetesExecutor
from warpctl.kube.api import Object
from warpctl.kube.connection import Connection
from warpctl.kube.resources import JOBS, PODS, WARPRUNS
from warpctl.plan.progress import summarise
from warpctl.plan.stages import stages
from warpctl.spec.controller_config import ControllerConfig
from warpctl.spec.status import (
    READY,
    RECONCILING,
    STALLED,
    SUCCEEDED,
    SUSPENDED,
    Condition,
    ConditionStatus,
    Progress,
    RunStatus,
    StageState,
    StageStatus,
)
from warpctl.spec.warp_run import WarpRun
from warpctl.storage.store import Retries, Store

LOOKING = ControllerConfig(progress_seconds=1)
UNREADABLE = (StoreDeniedError, StoreUnavailableError)
PATIENCE = Retries(attempts=3, total_seconds=10.0, wait_max_seconds=2.0)
_COUNTED = re.compile(r"^(\S+) (\d+)/(\d+)")


@dataclass(frozen=True)
class ClusterRun(RunReference):
    """A WarpRun of a cluster; `found` is the object, `typed` its name."""

    connection: Connection
    found: Object

    @property
    def namespace(self) -> str:
        """The object's."""
        return str(self.found["metadata"]["namespace"])

    @property
    def status(self) -> Mapping[str, Any]:
        """What the controller has written; {} before its first visit."""
        return self.found.get("status") or {}

    @property
    def is_in_cluster(self) -> bool:
        return True

    def look(self, now: datetime) -> RunStatus:
        """What is seen from here; where the store cannot be read, the controller's word."""
        try:
            return self.seen(summarise(self.run, self.engine().observe(), now))
        except UNREADABLE as error:
            warn(f"the store cannot be read from here: {error.message}", hint="what follows is the controller's word")
            return seen_by_controller(self)

    def seen(self, summary: RunStatus) -> RunStatus:
        """A summary under the conditions that the controller has written: it knows what is refused, and why."""
        seen_generation, generation = self.status.get("observedGeneration", 0), self.found["metadata"]["generation"]
        is_of_this_spec = seen_generation >= generation or not seen_generation
        return summary.model_copy(update={"conditions": conditions_of(self.status)}) if is_of_this_spec else summary

    def events_text(self) -> str:
        """A table of the newest Events."""
        return events_text(self.connection.api, self.namespace, self.found["metadata"]["uid"])

    def shows_own_report(self) -> bool:
        """As for a run of this machine; False where the store cannot be read."""
        try:
            return super().shows_own_report()
        except UNREADABLE:
            return False

    def engine(self) -> Engine:
        """An engine for looking, over the Jobs and pods as they are now."""
        return self.engine_over(look_at_jobs(self.connection, self.namespace))

    def engine_over(self, world: Cluster) -> Engine:
        """An engine for looking, over Jobs and pods that were listed."""
        return self.engine_and_executor(world)[0]

    def engine_and_executor(self, world: Cluster) -> tuple[Engine, KubernetesExecutor]:
        """As `engine_over`, and what it looks through, whose `world` may be exchanged."""
        seen = warp_run_object(self.found)
        api = self.connection.api
        executor = KubernetesExecutor(self.run, seen.uid, api, world, LOOKING, self.store, now=api.clock.now)
        engine = Engine(
            self.run,
            executor,
            self.store,
            retry_since=retry_since(seen, api.clock.now()),
            earlier_gpu_seconds=number(self.status.get("endedGpuSeconds")),
        )
        see_shared_stages(engine, executor)
        return engine, executor


def resolve_in_cluster(name: str, namespace: str, context: str, kubeconfig: str, state_dir: str = "") -> ClusterRun:
    """The WarpRun of this name; UserError when there is none, or when this version cannot read it."""
    connection = cluster(kubeconfig, context)
    return as_cluster_run(connection, the_run(connection, namespace, name), state_dir)


def as_cluster_run(connection: Connection, found: Object, state_dir: str = "") -> ClusterRun:
    """An object that was read, with its store."""
    run = run_of(found)
    store = Store.open(run.spec.storage.uri, retries=PATIENCE)
    folder = StateFolder.of(run, storage_root=store.root, root=state_root(state_dir, os.environ))
    return ClusterRun(run.metadata.name, run, store, folder, connection, found)


def run_of(found: Object) -> WarpRun:
    """The spec of an object as this version reads it; UserError when it was written for another one."""
    try:
        return WarpRun.model_validate(warp_run_object(found).body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"WarpRun {found['metadata']['name']} is not one that warpctl {__version__} can read: {where}: {first['msg']}",
            hint="the cluster's controller is of another version: use the same one here",
        ) from error


def look_at_jobs(connection: Connection, namespace: str) -> Cluster:
    """The Jobs and pods of a namespace as they are now."""
    world = Cluster(connection.api, lambda _: None, namespace)
    for reflector, resource in ((world.jobs, JOBS), (world.pods, PODS)):
        for obj in connection.api.list(resource, namespace, labels=MANAGED).items:
            reflector.accept(obj)
    return world


def see_shared_stages(engine: Engine, executor: KubernetesExecutor) -> None:
    """From now on Jobs that another run has for stages of this one are seen too, which the controller learns from conflicts."""
    graph = stages(engine.run, engine.observe().imported())
    executor.shared_keys |= set(graph.by_key())


def seen_by_controller(reference: ClusterRun) -> RunStatus:
    """What the status alone tells: stages at work or in trouble; the others by the iterations that are merged."""
    status = reference.status
    shown = {each["id"]: each for each in status.get("stages") or ()}
    graph = stages(reference.run, {})
    merged = int(status.get("iteration", 0))
    conditions = conditions_of(status)
    is_done = any(each.type == SUCCEEDED and each.status is ConditionStatus.TRUE for each in conditions)
    ids = [*graph.stages, *graph.pending]
    return RunStatus(
        namespace=reference.namespace,
        name=reference.typed,
        conditions=conditions,
        stages=tuple(_stage(each, shown.get(each), is_past=is_done or _iteration(each) <= merged) for each in ids),
        iteration=merged,
        iterations=int(status.get("iterations", reference.run.spec.iterations)),
        stages_succeeded=int(status.get("stagesSucceeded", 0)),
        stages_total=int(status.get("stagesTotal", len(ids))),
        retries=int(status.get("retries", 0)),
        gpu_hours=number(status.get("gpuHours")),
    )


def has_stalled(status: RunStatus) -> bool:
    """Whether it goes nowhere by itself: other stages may go on beside one that has failed for good."""
    return status.is_true(STALLED) and not status.is_true(RECONCILING)


def conditions_of(status: Mapping[str, Any]) -> tuple[Condition, ...]:
    """The conditions of an object; all five, unknown before the controller's first visit."""
    written = {each["type"]: each for each in status.get("conditions") or ()}
    unknown = {"status": "Unknown", "reason": "NotVisited", "message": "no controller has looked at it yet"}
    return tuple(
        Condition(
            type=kind,
            status=ConditionStatus(one["status"]),
            reason=one["reason"],
            message=one["message"],
        )
        for kind in (READY, RECONCILING, STALLED, SUSPENDED, SUCCEEDED)
        for one in [written.get(kind, unknown)]
    )


def refreshed(reference: ClusterRun) -> ClusterRun:
    """The same run as it is now; its spec may have changed. WarpctlError when it has been deleted."""
    found = reference.connection.api.get(WARPRUNS, reference.namespace, reference.typed)
    if found is None:
        raise WarpctlError(
            f"WarpRun {reference.typed} was deleted", hint="its artifacts are kept unless its deletionPolicy was Delete"
        )
    run = run_of(found)
    if run.spec.storage.uri == reference.run.spec.storage.uri:
        return replace(reference, run=run, found=found)
    return replace(reference, run=run, found=found, store=Store.open(run.spec.storage.uri, retries=PATIENCE))


def _stage(stage_id: str, shown: Mapping[str, Any] | None, *, is_past: bool) -> StageStatus:
    kind = stage_id.split("/", maxsplit=1)[0]
    if shown is None:
        state = StageState.SUCCEEDED if is_past else StageState.WAITING
        return StageStatus(id=stage_id, kind=kind, iteration=_iteration(stage_id), state=state)
    counted = _COUNTED.match(shown.get("progress", ""))
    progress = Progress(unit=counted[1], done=int(counted[2]), total=int(counted[3])) if counted else None
    return StageStatus(
        id=stage_id,
        kind=kind,
        iteration=_iteration(stage_id),
        state=StageState(shown["state"]),
        attempts=int(shown.get("attempts", 0)),
        message=shown.get("message", ""),
        progress=progress,
    )


def _iteration(stage_id: str) -> int:
    """0 for what comes before the first; a control or the last report counts as beyond the last."""
    kind, _, rest = stage_id.partition("/")
    first = rest.split("/")[0]
    if kind == "import":
        return 0
    return int(first) if kind in ("rl", "merge") and first.isdigit() else 1_000_000
