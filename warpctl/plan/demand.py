"""Which stages are needed: as in a build system, those that something wanted and unfinished depends on.

A finished stage needs nothing any more, so nothing is made again only because an intermediate of it was collected.
"""

from __future__ import annotations

from warpctl.plan.observed import Observed
from warpctl.plan.stages import Stage, StageGraph, final_stage_ids
from warpctl.spec.compute import MemberRetention, MergeRetention
from warpctl.spec.stage_input import StageKind
from warpctl.spec.warp_run import WarpRun


def needed_stages(run: WarpRun, graph: StageGraph, observed: Observed) -> dict[str, Stage]:
    """The unfinished stages that the run still needs, by id, in the graph's order."""
    needed: set[str] = set()
    queue = list(graph.stages) if graph.pending else list(final_stage_ids(run))
    queue += _newest_report(graph, observed)
    while queue:
        stage = graph.stages[queue.pop()]
        if stage.id in needed or observed.is_committed(stage.key):
            continue
        needed.add(stage.id)
        queue += [item.stage_id for item in stage.inputs if not item.optional]
    return {stage_id: stage for stage_id, stage in graph.stages.items() if stage_id in needed}


def _newest_report(graph: StageGraph, observed: Observed) -> list[str]:
    """The last report whose evaluations are all there: an older one would show less."""
    possible = [
        stage.id
        for stage in graph.stages.values()
        if stage.kind is StageKind.REPORT and has_inputs(stage, graph, observed)
    ]
    return possible[-1:]


def has_inputs(stage: Stage, graph: StageGraph, observed: Observed) -> bool:
    """Whether every required input of `stage` is committed."""
    return all(observed.is_committed(graph.stages[item.stage_id].key) for item in stage.inputs if not item.optional)


def mixed_members(graph: StageGraph, needed: dict[str, Stage], observed: Observed) -> list[Stage]:
    """Finished RL runs of an unfinished merge that started from other bits than the iteration's init has now.

    That happens when an init was lost and made again on hardware that does not repeat its bits. Merging task vectors of
    two inits would be meaningless, so these RL runs are made again.
    """
    mixed = []
    for merge in needed.values():
        if merge.kind is not StageKind.MERGE:
            continue
        inputs = {item.role: graph.stages[item.stage_id] for item in merge.inputs}
        init = observed.committed.get(inputs.pop("init").key)
        for member in inputs.values():
            committed = observed.committed.get(member.key)
            if init is not None and committed is not None and committed.parents.get("init") != init.content_digest:
                mixed.append(member)
    return mixed


def collectable(run: WarpRun, graph: StageGraph, needed: dict[str, Stage]) -> set[str]:
    """Ids of stages whose artifacts the retention policy gives up: no needed stage reads them any more."""
    read = {item.stage_id for stage in needed.values() for item in stage.inputs}
    retention, last = run.spec.retention, run.spec.iterations
    given_up = set()
    for stage in graph.stages.values():
        if stage.kind is StageKind.RL and retention.members is MemberRetention.UNTIL_EVALUATED:
            given_up.add(stage.id)
        if stage.kind is StageKind.MERGE and retention.merges is MergeRetention.LAST and stage.iteration < last:
            given_up.add(stage.id)
    return {stage_id for stage_id in given_up if stage_id not in read and stage_id not in needed}
