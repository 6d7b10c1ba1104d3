"""Makes the newest possible report of a run, whether or not the run is finished, through the engine's own stages."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from warpctl.cli.front_text import report_place
from warpctl.cli.local_run import LocalRun, make_local_run
from warpctl.cli.run_reference import RunReference
from warpctl.cli.stop_signals import StopSignals
from warpctl.cli.terminal import note
from warpctl.errors import BusyError, FinalError, Interrupted, UserError
from warpctl.executors.places import Machine
from warpctl.plan.actions import Forget, Show, Start, WriteRoots
from warpctl.plan.demand import newest_report as newest_report_id
from warpctl.plan.observed import Attempt, AttemptState, Observed
from warpctl.plan.planner import plan
from warpctl.plan.stages import Stage, stages
from warpctl.spec.compute import Budget


def make_report(reference: RunReference, *, is_again: bool) -> None:
    """Nothing when the report is there and shows all evaluations; UserError before the first evaluation."""
    observed = reference.engine().observe()
    stage = newest_report(reference, observed)
    if observed.is_committed(stage.key) and not is_again:
        if observed.shown_report != stage.key or not report_place(reference):
            reference.engine().perform(Show(stage), datetime.now(UTC))
        return
    try:
        with reference.folder.lock():
            _make(reference, stage)
    except BusyError as error:
        raise BusyError(
            error.message, hint="that run makes the report by itself after each evaluation; look again soon"
        ) from error


def newest_report(reference: RunReference, observed: Observed) -> Stage:
    """The last report stage whose evaluations are all published."""
    graph = stages(reference.run, observed.imported())
    for stage_id in newest_report_id(graph, observed):
        return graph.stages[stage_id]
    raise UserError(
        "nothing is evaluated yet, so there is nothing to report",
        hint=f"`warpctl run {reference.typed}` goes on; `warpctl status {reference.typed}` shows how far it is",
    )


def _make(reference: RunReference, stage: Stage) -> None:
    began = datetime.now(UTC)
    local = make_local_run(reference, Machine(cores=1), environment=os.environ, retry_since=began)
    local.engine.perform(Forget(stage), began)
    note(f"making {stage.id}")
    with StopSignals() as signals:
        while not (observed := local.engine.observe()).is_committed(stage.key):
            attempt = _newest(observed, stage, began)
            if signals.count:
                _stop(local, attempt, signals)
                raise Interrupted("interrupted; the report is not made")
            if attempt is not None and attempt.state is not AttemptState.ACTIVE:
                raise FinalError(
                    f"making the report failed: {attempt.message}", hint=f"its log: {local.executor.log_file(attempt)}"
                )
            if attempt is None:
                _start(local, observed, stage)
            signals.wait(0.2)
    local.engine.perform(Show(stage), datetime.now(UTC))


def _start(local: LocalRun, observed: Observed, stage: Stage) -> None:
    """Of all that the plan would do now, only this."""
    now = datetime.now(UTC)
    # A suspended run, or one over its budget, may still be looked at.
    spec = local.engine.run.spec.model_copy(update={"suspend": False, "budget": Budget()})
    actions = plan(local.engine.run.model_copy(update={"spec": spec}), observed, now)
    wanted = [a for a in actions if isinstance(a, WriteRoots) or (isinstance(a, Start) and a.stage.key == stage.key)]
    if not any(isinstance(action, Start) for action in wanted):
        raise FinalError(
            f"{stage.id} cannot be made now",
            hint="its evaluations changed while this command looked; run the same command again",
        )
    for action in wanted:
        local.engine.perform(action, now)


def _newest(observed: Observed, stage: Stage, began: datetime) -> Attempt | None:
    own = [attempt for attempt in observed.attempts.get(stage.key, ()) if attempt.started_at >= began]
    return own[-1] if own else None


def _stop(local: LocalRun, attempt: Attempt | None, signals: StopSignals) -> None:
    while attempt is not None and any(
        each.attempt_id == attempt.attempt_id and each.state is AttemptState.ACTIVE
        for each in local.executor.attempts().get(attempt.key, ())
    ):
        local.executor.stop(attempt, "interrupted by the user")
        signals.wait(0.2)
