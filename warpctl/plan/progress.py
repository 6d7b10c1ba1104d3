"""`summarise(run, observed, now)`: what was seen, as conditions and one row a stage. Nothing is decided here."""

from __future__ import annotations

from datetime import datetime

from warpctl.plan.demand import finals, has_inputs, needed_stages
from warpctl.plan.observed import Attempt, AttemptState, FailureClass, Observed
from warpctl.plan.planner import gpu_hours, why_suspended
from warpctl.plan.stages import FINAL_REPORT, Stage, StageGraph, merge_id, stages
from warpctl.plan.truth import Judgement, Verdict, judge
from warpctl.spec.reasons import Reason
from warpctl.spec.stage_input import StageKind
from warpctl.spec.status import (
    READY,
    RECONCILING,
    STALLED,
    SUCCEEDED,
    SUSPENDED,
    Condition,
    ConditionStatus,
    RunStatus,
    StageState,
    StageStatus,
)
from warpctl.spec.warp_run import WarpRun


def summarise(run: WarpRun, observed: Observed, now: datetime, *, graph: StageGraph | None = None) -> RunStatus:
    """The status of `run`; the same facts as `plan` sees."""
    graph = graph or stages(run, observed.imported())
    needed = needed_stages(run, graph, observed)
    rows = [
        _row(stage, graph, needed, observed, judge(stage.key, observed, run.spec.retry, now))
        for stage in graph.stages.values()
        if _is_shown(stage, needed, observed)
    ]
    rows += [
        StageStatus(id=stage_id, kind=_kind_of(stage_id), state=StageState.PENDING)
        for stage_id in graph.pending
        if not stage_id.startswith("report/") or stage_id == FINAL_REPORT
    ]
    # The report of an iteration comes and goes; a total that does too would read as progress undone.
    counted = [row for row in rows if row.kind != StageKind.REPORT or row.id == FINAL_REPORT]
    done = {StageState.SUCCEEDED, StageState.UNNEEDED}
    merged = [
        iteration
        for iteration in range(1, run.spec.iterations + 1)
        if not graph.pending and _is_done(graph.stages[merge_id(iteration)], needed)
    ]
    return RunStatus(
        namespace=run.metadata.namespace,
        name=run.metadata.name,
        conditions=_conditions(run, graph, tuple(rows), observed),
        stages=tuple(rows),
        iteration=max(merged, default=0),
        iterations=run.spec.iterations,
        stages_succeeded=sum(row.state in done for row in counted),
        stages_total=len(counted),
        retries=sum(_is_retry(attempt) for attempts in observed.attempts.values() for attempt in attempts),
        gpu_hours=round(gpu_hours(observed), 4),
    )


def _is_retry(attempt: Attempt) -> bool:
    """An attempt that failed by itself; one that was asked to stop is no failure."""
    is_own_end = attempt.failure is not FailureClass.INTERRUPTED
    return attempt.state is AttemptState.FAILED and is_own_end and not attempt.is_foreign


def _is_done(stage: Stage, needed: dict[str, Stage]) -> bool:
    return stage.id not in needed


def _is_shown(stage: Stage, needed: dict[str, Stage], observed: Observed) -> bool:
    """A report of an earlier iteration is a row only while it is being made."""
    if stage.kind is StageKind.REPORT and stage.id != FINAL_REPORT:
        return stage.id in needed and any(a.state is AttemptState.ACTIVE for a in observed.attempts.get(stage.key, ()))
    return True


def _row(
    stage: Stage, graph: StageGraph, needed: dict[str, Stage], observed: Observed, judgement: Judgement
) -> StageStatus:
    attempts = observed.attempts.get(stage.key, ())
    newest = attempts[-1] if attempts else None
    committed = observed.committed.get(stage.key)
    is_ready = has_inputs(stage, graph, observed)
    shown_end = committed.ended_at if committed else ""
    return StageStatus(
        id=stage.id,
        kind=stage.kind,
        key=stage.key,
        iteration=stage.iteration,
        member=stage.member,
        control=stage.control,
        state=_state(stage, needed, judgement, is_ready=is_ready, waits=bool(newest and newest.waits_for)),
        attempts=len(attempts),
        cached=committed is not None and all(not a.wrote(committed.attempt_id) or a.is_foreign for a in attempts),
        message=observed.refused.get(stage.key) or judgement.message or (newest.waits_for if newest else ""),
        attempt_id=newest.attempt_id if newest else "",
        progress=newest.progress if newest and newest.state is AttemptState.ACTIVE else None,
        started_at=newest.started_at.isoformat() if newest else "",
        ended_at=_ended(newest) or shown_end,
        retry_at=judgement.retry_at.isoformat() if judgement.retry_at else "",
    )


def _ended(attempt: Attempt | None) -> str:
    return attempt.ended_at.isoformat() if attempt and attempt.ended_at else ""


def _state(stage: Stage, needed: dict[str, Stage], judgement: Judgement, *, is_ready: bool, waits: bool) -> StageState:
    if judgement.verdict is Verdict.SUCCEEDED:
        return StageState.SUCCEEDED
    if stage.id not in needed:
        return StageState.UNNEEDED
    states = {
        Verdict.RUNNING: StageState.QUEUED if waits else StageState.RUNNING,
        Verdict.BACKING_OFF: StageState.RETRYING,
        Verdict.STALLED: StageState.STALLED,
    }
    return states.get(judgement.verdict, StageState.QUEUED if is_ready else StageState.WAITING)


def _kind_of(stage_id: str) -> str:
    parts = stage_id.split("/")
    return parts[-1] if parts[0] == "control" else parts[0]


def _running(rows: list[StageStatus]) -> str:
    """`2 running: rl/2/1 step 412/600, rl/2/2`, at most three by name: what one looks at a list of runs for."""
    if not rows:
        return "none is running"
    named = [f"{row.id} {row.progress.counted}" if row.progress else row.id for row in rows[:3]]
    return f"{len(rows)} running: {', '.join(named)}" + (", ..." if len(rows) > 3 else "")


def _conditions(
    run: WarpRun, graph: StageGraph, rows: tuple[StageStatus, ...], observed: Observed
) -> tuple[Condition, ...]:
    wanted = finals(run, graph, observed)
    succeeded = not graph.pending and all(observed.is_committed(graph.stages[stage].key) for stage in wanted)
    stalled = [row for row in rows if row.state is StageState.STALLED]
    running = [row for row in rows if row.state is StageState.RUNNING]
    waiting = [row for row in rows if row.state is StageState.QUEUED and row.message]
    suspended = "" if succeeded else why_suspended(run, observed)
    if succeeded:
        reason, message = Reason.SUCCEEDED, "every iteration is merged and evaluated"
    elif suspended:
        reason, message = Reason.SUSPENDED, suspended
    elif stalled:
        names = ", ".join(row.id for row in stalled[:3]) + (", ..." if len(stalled) > 3 else "")
        reason, message = Reason.STAGE_STALLED, f"{names}: {stalled[0].message}"
    elif waiting and not running:
        reason, message = Reason.WAITING, f"{waiting[0].id}: {waiting[0].message}"
    else:
        published = sum(row.state is StageState.SUCCEEDED for row in rows)
        reason, message = Reason.PROGRESSING, f"{published} stages are published, {_running(running)}"
    facts = {
        READY: succeeded,
        RECONCILING: not (succeeded or suspended or (stalled and not (running or waiting))),
        STALLED: bool(stalled) and not succeeded,
        SUSPENDED: bool(suspended),
        SUCCEEDED: succeeded,
    }
    return tuple(
        Condition(
            type=kind,
            status=ConditionStatus.TRUE if is_true else ConditionStatus.FALSE,
            reason=reason,
            message=message if is_true or kind == READY else _NOT[kind],
        )
        for kind, is_true in facts.items()
    )


_NOT = {
    RECONCILING: "there is nothing to do, or nothing that can be done now",
    STALLED: "no stage has failed for good",
    SUSPENDED: "it may run",
    SUCCEEDED: "not everything that is wanted is published",
}
"""What each condition says while it is False."""
