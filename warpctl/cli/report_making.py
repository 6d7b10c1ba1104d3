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
from warpctl.plan.actions import Forget, Start, WriteRoots
from warpctl.plan.demand import has_inputs
from warpctl.plan.observed import Attempt, AttemptState, Observed
from warpctl.plan.planner import plan
from warpctl.plan.stages import Stage, stages
from warpctl.spec.stage_input import StageKind


def make_report(reference: RunReference, *, is_again: bool) -> None:
    """Nothing when the report is there and shows all evaluations; UserError before the first evaluation."""
    observed = reference.engine().observe()
    stage = newest_report(reference, observed)
    if observed.is_committed(stage.key) and report_place(reference.run, reference.store) and not is_again:
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
    possible = [
        stage
        for stage in graph.stages.values()
        if stage.kind is StageKind.REPORT and has_inputs(stage, graph, observed)
    ]
    if not possible:
        raise UserError(
            "nothing is evaluated yet, so there is nothing to report",
            hint=f"`warpctl run {reference.typed}` goes on; `warpctl status {reference.typed}` shows how far it is",
        )
    return possible[-1]


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
        while _is_active(local, stage):  # the views are written after the marker
            signals.wait(0.1)


def _start(local: LocalRun, observed: Observed, stage: Stage) -> None:
    """Of all that the plan would do now, only this."""
    now = datetime.now(UTC)
    for action in plan(local.engine.run, observed, now):
        if isinstance(action, WriteRoots) or (isinstance(action, Start) and action.stage.key == stage.key):
            local.engine.perform(action, now)


def _newest(observed: Observed, stage: Stage, began: datetime) -> Attempt | None:
    own = [attempt for attempt in observed.attempts.get(stage.key, ()) if attempt.started_at >= began]
    return own[-1] if own else None


def _is_active(local: LocalRun, stage: Stage) -> bool:
    return any(each.state is AttemptState.ACTIVE for each in local.executor.attempts().get(stage.key, ()))


def _stop(local: LocalRun, attempt: Attempt | None, signals: StopSignals) -> None:
    while attempt is not None and any(
        each.attempt_id == attempt.attempt_id and each.state is AttemptState.ACTIVE
        for each in local.executor.attempts().get(attempt.key, ())
    ):
        local.executor.stop(attempt, "interrupted by the user")
        signals.wait(0.2)
