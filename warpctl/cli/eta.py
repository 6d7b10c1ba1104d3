"""How long a run will still take: stages left, at the pace of those that ran. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from warpctl.cli.durations import seconds_between
from warpctl.cli.stage_table import remaining_seconds
from warpctl.spec.stage_input import StageKind
from warpctl.spec.status import RunStatus, StageState, StageStatus

_DONE = (StageState.SUCCEEDED, StageState.UNNEEDED)


def remaining(status: RunStatus, *, units: Mapping[str, float], slots: int) -> float | None:
    """Seconds until the run is done, None while no RL run has shown its pace.

    `units`: how much work a stage is (an RL run's steps; 1 where missing), by stage id. `slots`: stages at once. The larger of
    two lower bounds: all work spread over the slots, and the longest chain (rl, merge, rl, ..., evaluate, report).
    """
    paces = _paces(status.stages, units)
    left = [stage for stage in status.stages if stage.state not in _DONE]
    if any(stage.kind == StageKind.RL for stage in left) and StageKind.RL not in paces:
        return None
    seconds = {stage.id: _left(stage, paces, units) for stage in left}
    if not seconds:
        return 0.0
    return max(sum(seconds.values()) / max(slots, 1), _chain(left, seconds))


def _paces(stages: Iterable[StageStatus], units: Mapping[str, float]) -> dict[str, float]:
    """Seconds per unit of each kind that has run."""
    spent: dict[str, float] = {}
    done: dict[str, float] = {}
    for stage in stages:
        took = seconds_between(stage.started_at, stage.ended_at)
        if stage.state is StageState.SUCCEEDED and took is not None:
            spent[stage.kind] = spent.get(stage.kind, 0.0) + took
            done[stage.kind] = done.get(stage.kind, 0.0) + units.get(stage.id, 1.0)
        elif stage.progress is not None and stage.progress.done > 0 and stage.progress.total > 0:
            share = stage.progress.done / stage.progress.total
            spent[stage.kind] = spent.get(stage.kind, 0.0) + stage.progress.elapsed_seconds
            done[stage.kind] = done.get(stage.kind, 0.0) + share * units.get(stage.id, 1.0)
    return {kind: spent[kind] / done[kind] for kind in spent if done[kind] > 0}


def _left(stage: StageStatus, paces: Mapping[str, float], units: Mapping[str, float]) -> float:
    known = remaining_seconds(stage.progress)
    return known if known is not None else paces.get(stage.kind, 0.0) * units.get(stage.id, 1.0)


def _chain(left: Iterable[StageStatus], seconds: Mapping[str, float]) -> float:
    rl: dict[int, float] = {}
    total, last_evaluate, control, report = 0.0, 0.0, 0.0, 0.0
    for stage in left:
        if stage.control:
            control += seconds[stage.id]
        elif stage.kind == StageKind.RL:
            rl[stage.iteration] = max(rl.get(stage.iteration, 0.0), seconds[stage.id])
        elif stage.kind == StageKind.MERGE:
            total += seconds[stage.id]
        elif stage.kind == StageKind.EVALUATE:
            last_evaluate = max(last_evaluate, seconds[stage.id])
        elif stage.kind == StageKind.REPORT:
            report = max(report, seconds[stage.id])
    return max(total + sum(rl.values()) + last_evaluate, control) + report
