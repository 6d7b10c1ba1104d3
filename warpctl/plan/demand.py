"""Which stages are needed: as in a build system, those that something wanted and unfinished depends on.

A finished stage needs nothing any more, so nothing is made again only because an intermediate of it was collected. What was
collected has left its marker (what it was, and from what) while its weights are gone.
"""

from __future__ import annotations

from warpctl.plan.observed import Observed
from warpctl.plan.stages import Input, Stage, StageGraph, final_stage_ids, merge_id
from warpctl.spec.compute import MemberRetention, MergeRetention
from warpctl.spec.stage_input import StageKind
from warpctl.spec.warp_run import WarpRun

_POLICIES = (StageKind.RL, StageKind.MERGE)


def finals(run: WarpRun, graph: StageGraph, observed: Observed) -> list[str]:
    """Ids of the stages that the run is for; while keys are pending, the imports.

    A last merged policy that was collected, by a spec that had more iterations, is not trained again.
    """
    if graph.pending:
        return list(graph.stages)
    last = graph.stages[merge_id(run.spec.iterations)]
    is_given_up = last.key in observed.broken and _would_retrain(last, graph, observed)
    return [stage_id for stage_id in final_stage_ids(run) if not (stage_id == last.id and is_given_up)]


def needed_stages(run: WarpRun, graph: StageGraph, observed: Observed) -> dict[str, Stage]:
    """The unfinished stages that the run still needs, by id, in the graph's order."""
    needed: set[str] = set()
    queue = [*finals(run, graph, observed), *newest_report(graph, observed)]
    while queue:
        stage = graph.stages[queue.pop()]
        if stage.id in needed or observed.is_committed(stage.key):
            continue
        needed.add(stage.id)
        queue += [item.stage_id for item in stage.inputs if not _is_usable(item, stage, graph, observed)]
    return {stage_id: stage for stage_id, stage in graph.stages.items() if stage_id in needed}


def newest_report(graph: StageGraph, observed: Observed) -> list[str]:
    """Id of the last report whose evaluations are all there, if any: an older one would show less."""
    possible = [
        stage.id
        for stage in graph.stages.values()
        if stage.kind is StageKind.REPORT and has_inputs(stage, graph, observed)
    ]
    return possible[-1:]


def has_inputs(stage: Stage, graph: StageGraph, observed: Observed) -> bool:
    """Whether everything that `stage` must read is there."""
    return all(_is_usable(item, stage, graph, observed) for item in stage.inputs)


def _is_usable(item: Input, stage: Stage, graph: StageGraph, observed: Observed) -> bool:
    """Whether `stage` can do without this input being made.

    An evaluation needs no more than the record of a policy that only training could bring back: points that were evaluated
    are found by content, and hours of RL would give another policy than the one that was merged.
    """
    source = graph.stages[item.stage_id]
    if item.optional or observed.is_committed(source.key):
        return True
    is_record = source.key in observed.broken and source.kind in _POLICIES
    return stage.kind is StageKind.EVALUATE and is_record and _would_retrain(source, graph, observed)


def _would_retrain(stage: Stage, graph: StageGraph, observed: Observed) -> bool:
    """Whether making `stage` again takes an RL run."""
    sources = [graph.stages[item.stage_id] for item in stage.inputs]
    return stage.kind is StageKind.RL or any(
        _would_retrain(source, graph, observed)
        for source in sources
        if source.kind in _POLICIES and not observed.is_committed(source.key)
    )


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


def given_up_keys(run: WarpRun, graph: StageGraph, needed: dict[str, Stage]) -> set[str]:
    """Keys of artifacts whose weights the retention policy gives up: no needed stage reads them any more.

    By key, not by id: two stages with one key are one artifact, and it stays while either wants it.
    """
    read = {graph.stages[item.stage_id].key for stage in needed.values() for item in stage.inputs}
    given_up: set[str] = set()
    kept = {stage.key for stage in needed.values()} | read
    for stage in graph.stages.values():
        (given_up if _is_given_up(stage, run) else kept).add(stage.key)
    return given_up - kept


def _is_given_up(stage: Stage, run: WarpRun) -> bool:
    if stage.kind is StageKind.RL:
        return run.spec.retention.members is MemberRetention.UNTIL_EVALUATED
    if stage.kind is StageKind.MERGE:
        return run.spec.retention.merges is MergeRetention.LAST and stage.iteration < run.spec.iterations
    return False
