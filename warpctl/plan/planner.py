"""`plan(run, observed, now)`: what to do next, from the spec and what was seen, and nothing else."""

from __future__ import annotations

from datetime import datetime

from warpctl.names import CANCEL
from warpctl.plan.actions import Action, Collect, Forget, Show, Start, Stop, WriteRoots
from warpctl.plan.demand import given_up_keys, has_inputs, mixed_members, needed_stages
from warpctl.plan.observed import Observed, Root
from warpctl.plan.stages import Stage, StageGraph, stages
from warpctl.plan.truth import Verdict, judge
from warpctl.spec.stage_input import EvaluateTask, InputArtifact, StageKind, Task
from warpctl.spec.warp_run import WarpRun

SECONDS_PER_HOUR = 3600.0


def plan(run: WarpRun, observed: Observed, now: datetime, *, graph: StageGraph | None = None) -> tuple[Action, ...]:
    """The actions of one pass, in the order in which they are to be performed; () when there is nothing to do.

    `graph` spares making that of `run` and `observed` once more.
    """
    graph = graph or stages(run, observed.imported())
    needed = needed_stages(run, graph, observed)
    suspended = why_suspended(run, observed)
    stops = _stops(needed, observed, suspended)
    if suspended:
        return stops
    given_up = given_up_keys(run, graph, needed)
    roots = _roots(graph, given_up, observed)
    write = (WriteRoots(roots),) if frozenset(roots) != observed.roots else ()
    return (
        *stops,
        *write,
        *_forgets(graph, needed, observed),
        *_starts(run, graph, needed, observed, now),
        *_collects(graph, given_up, observed),
        *_shows(graph, observed),
    )


def why_suspended(run: WarpRun, observed: Observed) -> str:
    """Why nothing may run now, as a sentence; "" when it may."""
    if run.is_cancelled:
        return f"cancelled: the annotation {CANCEL} is set"
    if run.spec.suspend:
        return "spec.suspend is true"
    limit = run.spec.budget.gpu_hours
    used = gpu_hours(observed)
    if limit is not None and used >= float(limit):
        return f"{used:.1f} GPU-hours are used, spec.budget.gpuHours is {limit}"
    return ""


def gpu_hours(observed: Observed) -> float:
    """GPU-hours of all attempts of this run, useful or lost."""
    seconds = sum(attempt.gpu_seconds for attempts in observed.attempts.values() for attempt in attempts)
    return (observed.earlier_gpu_seconds + seconds) / SECONDS_PER_HOUR


def _stops(needed: dict[str, Stage], observed: Observed, suspended: str) -> tuple[Stop, ...]:
    needed_keys = {stage.key for stage in needed.values()}
    stops = []
    for attempt in observed.active():
        committed = observed.committed.get(attempt.key)
        if committed is not None and attempt.wrote(committed.attempt_id):
            continue  # it has just published and is leaving
        if suspended:
            stops.append(Stop(attempt, suspended))
        elif committed is not None:
            stops.append(Stop(attempt, "another attempt has published this stage"))
        elif attempt.key not in needed_keys:
            stops.append(Stop(attempt, "the spec no longer needs this stage"))
    return tuple(stops)


def _forgets(graph: StageGraph, needed: dict[str, Stage], observed: Observed) -> tuple[Forget, ...]:
    lost = [stage for stage in needed.values() if stage.key in observed.broken]
    unique = {stage.key: stage for stage in (*lost, *mixed_members(graph, needed, observed))}
    return tuple(Forget(stage) for stage in unique.values())


def _starts(
    run: WarpRun, graph: StageGraph, needed: dict[str, Stage], observed: Observed, now: datetime
) -> tuple[Start, ...]:
    mixed = {stage.key for stage in mixed_members(graph, needed, observed)}
    free = (run.spec.parallelism or len(graph.stages)) - len(observed.active())
    starts: dict[str, Start] = {}
    for stage in sorted(needed.values(), key=_urgency):
        if len(starts) >= free:
            break
        # Two stage ids with one key are one computation; a merge waits until its members are of one lineage.
        if stage.key in starts or stage.key in observed.broken or not has_inputs(stage, graph, observed):
            continue
        if any(graph.stages[item.stage_id].key in mixed for item in stage.inputs):
            continue
        judgement = judge(stage.key, observed, run.spec.retry, now)
        if judgement.verdict is Verdict.MAY_START:
            starts[stage.key] = _start(stage, judgement.number, graph, observed)
    return tuple(starts.values())


def _urgency(stage: Stage) -> int:
    """The critical path of a run is rl, merge, rl, merge, ...; what only looks at it comes after, controls last."""
    if stage.control:
        return 2
    return 1 if stage.kind in (StageKind.EVALUATE, StageKind.REPORT) else 0


def _start(stage: Stage, number: int, graph: StageGraph, observed: Observed) -> Start:
    """Pin the inputs; leave out members that are not the very ones that were merged."""
    inputs = []
    merge_parents = _merge_parents(stage, graph, observed)
    for item in stage.inputs:
        source = graph.stages[item.stage_id]
        committed = observed.committed.get(source.key)
        if committed is None:
            continue  # only an optional input can be missing here
        if item.optional and merge_parents.get(item.role) != committed.content_digest:
            continue
        inputs.append(
            InputArtifact(
                role=item.role,
                kind=source.kind,
                key=source.key,
                manifest_digest=committed.manifest_digest,
                content_digest=committed.content_digest,
            )
        )
    return Start(stage, number, tuple(inputs), _task_for(stage, {item.role for item in inputs}))


def _merge_parents(stage: Stage, graph: StageGraph, observed: Observed) -> dict[str, str]:
    for item in stage.inputs:
        if item.role == "merge":
            return dict(observed.committed[graph.stages[item.stage_id].key].parents)
    return {}


def _task_for(stage: Stage, roles: set[str]) -> Task:
    task = stage.task
    if stage.kind is StageKind.EVALUATE and isinstance(task, EvaluateTask):
        kept = tuple(point for point in task.points if not point.source or point.source in roles)
        return task.model_copy(update={"points": kept})
    return task


def _roots(graph: StageGraph, given_up: set[str], observed: Observed) -> tuple[Root, ...]:
    """What collection must keep. While keys are pending nobody knows what the run will want, so nothing is given up."""
    own = {stage.key: Root(stage.kind, stage.key, stage.key not in given_up) for stage in graph.by_key().values()}
    earlier = {root.key: root for root in observed.roots} if graph.pending else {}
    return tuple(sorted((earlier | own).values()))


def _collects(graph: StageGraph, given_up: set[str], observed: Observed) -> tuple[Collect, ...]:
    gone = [
        Root(stage.kind, stage.key, is_whole=False)
        for stage in graph.by_key().values()
        if stage.key in given_up and observed.is_committed(stage.key)
    ]
    return (Collect(tuple(gone)),) if gone else ()


def _shows(graph: StageGraph, observed: Observed) -> tuple[Show, ...]:
    """The newest report that is published; one writer of the views, so that none covers a newer one."""
    published = [
        stage
        for stage in graph.stages.values()
        if stage.kind is StageKind.REPORT and observed.is_committed(stage.key) and has_inputs(stage, graph, observed)
    ]
    return (Show(published[-1]),) if published and published[-1].key != observed.shown_report else ()
