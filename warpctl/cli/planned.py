"""What a plan shows, as data: each stage with what will happen to it, and the changes since the last run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from warpctl.cli.preflight import check_sources
from warpctl.cli.run_reference import RunReference
from warpctl.cli.spec_changes import SpecChange, changes_since_last_run
from warpctl.plan.demand import needed_stages
from warpctl.plan.observed import Observed
from warpctl.plan.stages import FINAL_REPORT, Stage, stages
from warpctl.spec.warp_run import WarpRun


class Fate(StrEnum):
    """What a plan says of a stage."""

    REUSED = "reused"
    NEW = "new"
    RUNNING = "running"
    UNKNOWN = "known after import"
    UNNEEDED = "not needed"


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage; `key` is empty as long as it is known after import only."""

    id: str
    kind: str
    fate: Fate
    gpus: int
    key: str = ""


@dataclass(frozen=True)
class Planned:
    """The plan of a run."""

    run: WarpRun
    rows: tuple[PlannedStage, ...]
    changes: tuple[SpecChange, ...]
    has_run_before: bool

    @property
    def num_reused(self) -> int:
        return sum(row.fate is Fate.REUSED for row in self.rows)

    @property
    def num_to_make(self) -> int:
        return sum(row.fate in (Fate.NEW, Fate.RUNNING, Fate.UNKNOWN) for row in self.rows)


def planned(reference: RunReference) -> Planned:
    """Look at the store, the last accepted spec, and whether local sources are there (SpecError)."""
    observed = reference.engine().observe()
    check_sources(reference, observed)
    rows = planned_rows(reference.run, observed)
    changes = changes_since_last_run(reference)
    return Planned(reference.run, rows, changes or (), has_run_before=changes is not None)


def planned_rows(run: WarpRun, observed: Observed) -> tuple[PlannedStage, ...]:
    """Every stage in the graph's order; reports of earlier iterations are views on the way and left out."""
    graph = stages(run, observed.imported())
    needed = needed_stages(run, graph, observed)
    running = {attempt.key for attempt in observed.active()}
    rows = [
        PlannedStage(
            stage.id, stage.kind, _fate(stage, set(needed), observed, running), _gpus(run, stage.kind), stage.key
        )
        for stage in graph.stages.values()
        if not _is_early_report(stage.id)
    ]
    for stage_id in graph.pending:
        if not _is_early_report(stage_id):
            kind = stage_id.split("/")[2 if stage_id.startswith("control/") else 0]
            rows.append(PlannedStage(stage_id, kind, Fate.UNKNOWN, _gpus(run, kind)))
    return tuple(rows)


def _is_early_report(stage_id: str) -> bool:
    return stage_id.startswith("report/") and stage_id != FINAL_REPORT


def _fate(stage: Stage, needed: set[str], observed: Observed, running: set[str]) -> Fate:
    if observed.is_committed(stage.key):
        return Fate.REUSED
    if stage.key in running:
        return Fate.RUNNING
    return Fate.NEW if stage.id in needed else Fate.UNNEEDED


def _gpus(run: WarpRun, kind: str) -> int:
    compute = run.spec.compute.of(kind)
    return compute.gpus * compute.nodes
