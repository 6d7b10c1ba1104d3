"""What a spec file changes about the run of its name in a cluster: fields, stages, and what is at stake."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

from warpctl.cli.cluster import explained
from warpctl.cli.cluster_run import LOOKING, PATIENCE, ClusterRun, as_cluster_run, look_at_jobs
from warpctl.cli.cluster_spec import place_of, refuse_laptop_paths
from warpctl.cli.counts import count_text
from warpctl.cli.plan_text import plan_text
from warpctl.cli.planned import Planned, planned_rows
from warpctl.cli.spec_changes import changes_text, spec_changes
from warpctl.cli.terminal import RED, is_agreed, note, paint, warn
from warpctl.engine import Engine
from warpctl.errors import WarpctlError
from warpctl.executors.kubernetes import KubernetesExecutor
from warpctl.kube.connection import Connection
from warpctl.kube.errors import ClusterUnavailableError
from warpctl.kube.resources import WARPRUNS
from warpctl.plan.actions import Stop
from warpctl.plan.observed import Attempt, Observed
from warpctl.plan.planner import plan
from warpctl.plan.stages import stages
from warpctl.spec.parse import parse_file
from warpctl.storage.store import Store


@dataclass(frozen=True, slots=True)
class AtStake:
    """A started stage that the new spec does without."""

    stage_id: str
    gpu_hours: float
    running: str
    """How far its running attempt is, such as `step 412/600`; "" when none runs."""
    is_running: bool


@dataclass(frozen=True)
class Difference:
    """`generation` is the live object's; 0 when there is none yet."""

    plan: Planned
    generation: int
    at_stake: tuple[AtStake, ...] = ()

    @property
    def is_any(self) -> bool:
        return not self.generation or bool(self.plan.changes)

    def document(self) -> dict[str, Any]:
        """What a plan does not have."""
        rows = [
            {"id": each.stage_id, "gpuHours": f"{each.gpu_hours:.2f}", "isRunning": each.is_running}
            for each in self.at_stake
        ]
        return {"generation": self.generation, "atStake": rows}


def difference(spec: str, connection: Connection, namespace: str) -> Difference:
    """Compare a file with the cluster. Reads only."""
    new = parse_file(spec)
    refuse_laptop_paths(spec, new)
    place = place_of(new, namespace, connection)
    new = new.model_copy(update={"metadata": new.metadata.model_copy(update={"namespace": place})})
    with explained(f"namespace {place} is not there"):
        found = connection.api.get(WARPRUNS, place, new.metadata.name)
        if found is None:
            connection.api.list(WARPRUNS, place)  # tells an absent run from an absent definition
    if found is None:
        # What the store has already for a run that no cluster knows yet.
        store = Store.open(new.spec.storage.uri, retries=PATIENCE)
        executor = KubernetesExecutor(new, "", connection.api, look_at_jobs(connection, place), LOOKING, store)
        observed = Engine(new, executor, store).observe()
        return Difference(Planned(new, planned_rows(new, observed), (), has_run_before=False), 0)
    live = as_cluster_run(connection, found)
    world = look_at_jobs(connection, place)
    before = live.engine_over(world).observe()
    edited = replace(live, run=new, store=Store.open(new.spec.storage.uri, retries=PATIENCE))
    after = edited.engine_over(world).observe()
    changes = spec_changes(live.run, new, before, frozenset(after.imported()))
    planned = Planned(new, planned_rows(new, after), changes, has_run_before=True)
    lost = {stage_id for each in changes for stage_id in each.lost}
    generation = int(found["metadata"].get("generation", 0))
    return Difference(planned, generation, _at_stake(live, before, lost, _stopped(live, edited, before, after)))


def difference_text(found: Difference, *, is_wide: bool) -> str:
    """The plan of the new spec, the changed fields, and a line for what is at stake."""
    text = plan_text(found.plan, is_wide=is_wide, since=f"Changes against the live run (generation {found.generation})")
    if not found.generation:
        return f"{text}\n\nThere is no such WarpRun in the cluster yet."
    if not found.at_stake:
        return text
    return "\n\n".join([text, "\n".join(paint(line, RED, sys.stdout) for line in _stake_lines(found))])


def confirm_cancelling(spec: str, connection: Connection, namespace: str) -> None:
    """Ask before a changed spec cancels stages that run; WarpctlError when the answer is no."""
    new = parse_file(spec)
    try:
        if connection.api.get(WARPRUNS, place_of(new, namespace, connection), new.metadata.name) is None:
            return
        found = difference(spec, connection, namespace)
    except ClusterUnavailableError:
        raise
    except WarpctlError as error:  # a store out of reach, a run that this version cannot read: the file may mend it
        warn(f"cannot tell what {spec} cancels: {error.message}")
        return
    if not any(each.is_running for each in found.at_stake):
        return
    warn(f"{spec} changes a run that is at work (generation {found.generation})")
    note(changes_text(found.plan.changes, sys.stderr))
    note("\n".join(_stake_lines(found)))
    if not is_agreed("Go on?"):
        raise WarpctlError("nothing was changed", hint=f"`warpctl diff {spec}` shows more; --yes does not ask")


def _stake_lines(found: Difference) -> list[str]:
    hours = sum(each.gpu_hours for each in found.at_stake)
    running = [each for each in found.at_stake if each.is_running]
    lines = [f"At stake: {count_text(len(found.at_stake), 'started stage')}, {hours:.2f} GPU-hours so far."]
    if running:
        named = ", ".join(f"{each.stage_id} {each.running}".strip() for each in running[:3])
        more = ", ..." if len(running) > 3 else ""
        cancelled = f"Cancelled: {count_text(len(running), 'running Job')} ({named}{more})"
        lines.append(f"{cancelled}; their resume states are kept, and a reverted edit goes on from them.")
    return lines


def _stopped(live: ClusterRun, edited: ClusterRun, before: Observed, after: Observed) -> set[str]:
    """Ids of attempts that the controller will stop for the edited spec."""
    own = {each.attempt_id for each in before.active() if not each.is_foreign}
    if edited.store.root != live.store.root:
        return own  # what they would publish is wanted by nobody
    actions = plan(edited.run, after, edited.connection.api.clock.now())
    return own & {action.attempt.attempt_id for action in actions if isinstance(action, Stop)}


def _at_stake(live: ClusterRun, observed: Observed, lost: set[str], stopped: set[str]) -> tuple[AtStake, ...]:
    """Started stages that are made anew, and those whose attempt is stopped."""
    graph = stages(live.run, observed.imported())
    found = []
    for stage in graph.stages.values():
        attempts = observed.attempts.get(stage.key, ())
        active = next((each for each in attempts if each.attempt_id in stopped), None)
        if stage.id not in lost and active is None:
            continue
        hours = _gpu_seconds(attempts, observed, stage.key) / 3600
        said = active.progress.counted if active and active.progress else ""
        found.append(AtStake(stage.id, hours, said, active is not None))
    return tuple(found)


def _gpu_seconds(attempts: tuple[Attempt, ...], observed: Observed, key: str) -> float:
    """Of its attempts, or where their Jobs have gone of the one that published."""
    committed = observed.committed.get(key)
    return sum(each.gpu_seconds for each in attempts) or (committed.gpu_seconds if committed else 0.0)
