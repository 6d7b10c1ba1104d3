"""What `warpctl export` says of the point that it takes, and of the files that it would upload."""

from __future__ import annotations

from warpctl.cli.export_point import Point
from warpctl.cli.sizes import size_text
from warpctl.cli.table import table_text
from warpctl.storage.artifact import Artifact
from warpctl.storage.file_names import CONFIG
from warpctl.storage.headers import STORED_AS, TensorSpec, split_into_shards
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint
from warpctl.workers.export import FRONT, RECORD, SPEC, ExportTask, model_files
from warpctl.workers.export_weights import check_same_tensors
from warpctl.workers.hub_upload import repository_of
from warpctl.workers.model_card import interval_text


def point_text(point: Point, task: ExportTask) -> str:
    """iteration 2, LITI 0.3, why it was chosen, and its KL and rewards with intervals."""
    lines = [f"iteration {point.iteration}, {point.label}, {task.dtype}"]
    if point.why:
        lines.append(f"  {point.why}")
    estimates = point.estimates
    if estimates is None:
        return "\n".join([*lines, "  this very point was not evaluated in the run"])
    measured = {
        "KL": (estimates["kl"], " nats"),
        "reward": (estimates["reward"], ""),
        **{f"{name} (held out)": (each, "") for name, each in estimates["heldOut"].items()},
    }
    level = f"{float(task.card['confidenceLevel']) * 100:g}% intervals over prompts"
    parts = [f"{name} {interval_text(each)}{unit}" for name, (each, unit) in measured.items()]
    return "\n".join([*lines, *(f"  {part}" for part in parts), f"  ({level})"])


def files_text(task: ExportTask) -> str:
    """What a push would upload; reads headers only. WarpctlError for whatever would make the push fail here."""
    repository = repository_of(task.destination)
    store = Store.open(task.storage)
    files, sft_files = Artifact.of(store, task.files), Artifact.of(store, task.sft)
    names = model_files(files, task.files_prefix, sft_files)
    source = Checkpoint.open(Artifact.of(store, task.source), prefix=task.source_prefix)
    check_same_tensors(Checkpoint.open(sft_files), source)
    shards = split_into_shards(
        [TensorSpec(name, tensor.shape) for name, tensor in source.tensors.items()], dtype=STORED_AS[task.dtype]
    )
    rows = [[shard.file, size_text(shard.size)] for shard in shards]
    rows += [
        [name.removeprefix(task.files_prefix), size_text(files.entry(name).size)]
        for name in [*names, task.files_prefix + CONFIG]
    ]
    rows += [[name, ""] for name in ("README.md", SPEC, *([FRONT] if task.front else []), RECORD)]
    return f"{table_text(['FILE', 'SIZE'], rows)}\n\nDry run: nothing is uploaded. It would go to the private repository {repository}."
