"""Merge the RL runs of one iteration: SLERP of their task vectors, group by group, then LITI toward the init.

One streaming pass over the weights (Algorithm 1, lines 12 and 13): for each group read the M + 1 slices, take their inner
products, then write the merged policy and the next init, both float32, each value rounded once. The policies are merged,
never their EMAs. numpy and numba only. What fits the stage's memory is read once, a larger group twice, in parts.

Publishes merged/ and next-init/ (each a whole model: weights, config, tokenizer), serving/ if it is wanted (the merged policy
in bfloat16, rounded once from float64), and merge.json. Of several shards, those
that an earlier attempt finished are kept. It evaluates nothing.
"""

from __future__ import annotations

import json
from typing import Any

from warpctl.errors import FinalError, InputError
from warpctl.merging.record import merge_record
from warpctl.spec.stage_input import InputArtifact, MergeTask, StageInput
from warpctl.storage.artifact import Artifact, weights_prefix
from warpctl.storage.file_names import CONFIG, MERGE_RECORD, is_weights
from warpctl.storage.headers import MAX_SHARD_BYTES, STORED_AS
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint
from warpctl.workers.harness import Context, run
from warpctl.workers.merge_memory import give_back_at_once, least_memory_bytes, upload_bytes
from warpctl.workers.merge_output import MergeOutput, Published, published_by
from warpctl.workers.merge_reading import DEFAULT_MEMORY_BYTES, plan_groups
from warpctl.workers.merge_sources import Source, Sources
from warpctl.workers.merge_weights import merge_weights
from warpctl.workers.model_config import config_with_dtype

CALLED = {stored_as: dtype for dtype, stored_as in STORED_AS.items()}


def main(context: Context, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """The merge stage. Neither limit, of shards or of memory, changes a value that is written."""
    task = merge_task(context.stage_input)
    roles = ("init", *member_roles(context.stage_input))
    sources = Sources.check([open_source(context.store, context.stage_input.input(role)) for role in roles])
    if sources.tied_copies:
        context.log.warning(
            "stored by some inputs only, a copy of another tensor: left out", tensors=sources.tied_copies
        )
    policies = published_by(task)
    output = MergeOutput(
        context.store,
        context.publication,
        context.stage_input,
        policies,
        specs=sources.specs,
        max_shard_bytes=max_shard_bytes,
        rank=context.rank,
        num_nodes=context.num_nodes,
    )
    targets = [context.store.root] * len(policies)
    memory_bytes = context.stage_input.resources.memory_bytes or DEFAULT_MEMORY_BYTES
    if memory_bytes < (least_bytes := least_memory_bytes(len(roles), targets)):
        context.log.warning(
            "spec.compute.merge.memory is less than a merge of so many inputs can keep to",
            memory_bytes=memory_bytes,
            least_bytes=least_bytes,
            inputs=len(roles),
        )
    give_back_at_once()
    memory_bytes -= upload_bytes(targets)
    plans = plan_groups(sources, task.method, memory_bytes=memory_bytes)
    context.log.info(
        "merging",
        members=len(roles) - 1,
        groups=len(plans),
        read_twice=sum(plan.is_read_twice for plan in plans),
        shards_kept=output.num_kept,
    )

    def on_group(number: int, count: int) -> None:
        context.stop.raise_if_set()
        context.report_progress(number, count, "groups")

    with output:
        diagnostics = merge_weights(sources, task.method, output, on_group=on_group, memory_bytes=memory_bytes)
    output.save_state(diagnostics)
    whole = output.whole([plan.group for plan in plans])
    if whole is None:
        context.log.info("other nodes are still at work: the last one publishes")
        return
    for group in whole:
        if group.degenerate:
            context.log.warning("no slerp here, lerp instead", group=group.group, because=group.degenerate)

    settings = task.model_dump(mode="json", by_alias=True, exclude={"kind"})
    record = {"members": roles[1:], **settings, **merge_record(whole, tied_copies=sources.tied_copies)}
    init = sources.all[0].checkpoint
    for policy in policies:
        copy_model_files(init, context.publication, policy)
    context.publication.write_file(MERGE_RECORD, _json(record))
    context.report_progress(len(whole), len(whole), "groups")
    context.publication.commit(outcome=record["summary"], gpu_seconds=context.gpu_seconds())


def merge_task(stage_input: StageInput) -> MergeTask:
    """The task of this stage."""
    if not isinstance(stage_input.task, MergeTask):
        raise FinalError(
            f"the merge worker was given a task of kind {stage_input.task.kind}", hint="report this as a bug of warpctl"
        )
    return stage_input.task


def member_roles(stage_input: StageInput) -> tuple[str, ...]:
    """Roles of the M >= 1 members by their number: the order that Paper depends on."""
    roles = [artifact.role for artifact in stage_input.inputs if artifact.role.startswith("member/")]
    if not roles:
        raise FinalError(f"stage {stage_input.stage_id} has no members", hint="report this as a bug of warpctl")
    return tuple(sorted(roles, key=lambda role: int(role.removeprefix("member/"))))


def open_source(store: Store, artifact: InputArtifact) -> Source:
    """Headers of one input; errors say which input it is."""
    try:
        checkpoint = Checkpoint.open(Artifact.of(store, artifact), prefix=weights_prefix(artifact))
    except InputError as error:
        raise InputError(f"{artifact.role}: {error.message}", hint=error.hint) from error
    return Source(artifact.role, checkpoint)


def copy_model_files(init: Checkpoint, publication: Publication, policy: Published) -> None:
    """Everything of the init but its weights: tokenizer, generation config, chat template, config (with the policy's dtype)."""
    for name in init.artifact.names(init.prefix):
        file = name.removeprefix(init.prefix)
        if is_weights(file) or file == MERGE_RECORD:
            continue
        data = init.artifact.read(name)
        if file == CONFIG:
            data = config_with_dtype(data, CALLED[policy.product.dtype], source="init")
        publication.write_file(policy.prefix + file, data)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


if __name__ == "__main__":
    run(main)
