"""Write one point of the front as a model folder that transformers loads: weights, config, tokenizer, model card.

    weights = (1 - liti_rate) sft + liti_rate * source, in float64, rounded once to float32

Streams block by block, so that memory does not grow with the model. config.json is written after the weights and the record
warpctl-export.json last: a folder without a finished record is no model yet, and the next export into it starts anew.
It decides nothing: the command line chose the point and pinned its artifacts. No torch.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from pydantic import Field

from warpctl.errors import EXIT_DONE, EXIT_RETRYABLE, InputError, NumericsError, WarpctlError
from warpctl.merging.liti import Float32, liti, round_once
from warpctl.spec.base import DecimalText, SpecModel
from warpctl.spec.stage_input import InputArtifact
from warpctl.storage.artifact import Artifact
from warpctl.storage.headers import INDEX, TensorInfo, TensorSpec, index, split_into_shards
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint, to_float32
from warpctl.workers.model_card import model_card

ENVIRONMENT_VARIABLE = "WARPCTL_EXPORT"
RECORD = "warpctl-export.json"
CONFIG = "config.json"
BLOCK_ELEMENTS = 4 * 1024 * 1024


class ExportTask(SpecModel):
    """What to write, and where."""

    storage: str
    """Root of the run's store."""
    destination: str
    """Folder or URI prefix."""
    sft: InputArtifact
    source: InputArtifact
    """The merged policy or an RL run's policy."""
    source_prefix: str = ""
    files: InputArtifact
    """Whose config, tokenizer, generation config and chat template are copied."""
    files_prefix: str = ""
    liti_rate: DecimalText = Decimal(1)
    card: dict[str, Any] = Field(default_factory=dict)
    """What the model card says, see model_card.py."""


Report = Callable[[int, int], None]


def export(task: ExportTask, *, report: Report = lambda _done, _total: None) -> None:
    """Write the folder. `report` is told bytes done and in total."""
    store, target = Store.open(task.storage), Store.open(task.destination)
    files = Artifact.of(store, task.files)
    sft = Checkpoint.open(Artifact.of(store, task.sft))
    source = Checkpoint.open(Artifact.of(store, task.source), prefix=task.source_prefix)
    record = {"warpctlExport": 1, **task.model_dump(mode="json", by_alias=True, exclude={"storage", "destination"})}

    target.write(RECORD, _json({**record, "isComplete": False}))
    _write_weights(target, sft, source, float(task.liti_rate), report)
    for name in _model_files(files, task.files_prefix):
        target.write(name.removeprefix(task.files_prefix), files.read(name))
    target.write("README.md", model_card(task.card).encode())
    target.write(CONFIG, _float32_config(files.read(task.files_prefix + CONFIG)))
    target.write(RECORD, _json({**record, "isComplete": True}))


def _write_weights(target: Store, sft: Checkpoint, source: Checkpoint, liti_rate: float, report: Report) -> None:
    for name, tensor in source.tensors.items():
        if name not in sft.tensors or sft.tensors[name].shape != tensor.shape:
            raise InputError(
                f"tensor {name} of the source is not in the SFT policy, or has another shape there",
                hint="the two are not the same architecture; report this as a bug of warpctl",
            )
    shards = split_into_shards([TensorSpec(name, tensor.shape) for name, tensor in source.tensors.items()])
    total, done = sum(shard.size for shard in shards), 0
    for shard in shards:
        with target.open_write(shard.file) as sink:
            sink.write(shard.head)
            for tensor in shard.tensors:
                for values_N in _interpolated(sft, source, tensor, liti_rate):
                    sink.write(values_N.data.cast("B") if values_N.size else b"")
                    done += values_N.nbytes
                    report(done, total)
    if len(shards) > 1:
        target.write(INDEX, index(shards))
    report(total, total)


def _interpolated(sft: Checkpoint, source: Checkpoint, tensor: TensorInfo, liti_rate: float) -> Iterator[Float32]:
    """Blocks of one tensor, flattened, in order."""
    num_elements = math.prod(tensor.shape)
    for start in range(0, num_elements, BLOCK_ELEMENTS):
        block = slice(start, min(start + BLOCK_ELEMENTS, num_elements))
        sft_N, source_N = (to_float32(each.read_part(tensor.name, block)).astype("float64") for each in (sft, source))
        try:
            yield round_once(liti(sft_N, source_N, liti_rate=liti_rate))
        except FloatingPointError as error:
            raise NumericsError(
                f"tensor {tensor.name} leaves the range of float32 at LITI rate {liti_rate:g}",
                hint="use a smaller rate",
            ) from error


def _model_files(files: Artifact, prefix: str) -> list[str]:
    """Everything beside the weights, but for config.json, which is written last."""
    names = [name for name in files.names(prefix) if "/" not in name.removeprefix(prefix)]
    kept = [name for name in names if not name.endswith((".safetensors", ".safetensors.index.json", "README.md"))]
    if prefix + CONFIG not in kept:
        raise InputError(f"the model has no {CONFIG}", hint="it was imported without one; import it again")
    return [name for name in kept if name not in (prefix + CONFIG, prefix + "merge.json", prefix + "metrics.jsonl")]


def _float32_config(data: bytes) -> bytes:
    """The weights are float32 now, whatever they were imported as."""
    config = json.loads(data)
    for name in ("dtype", "torch_dtype"):
        if name in config:
            config[name] = "float32"
    return _json(config)


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def main() -> int:
    """Read the task from the environment; progress and errors go to stdout as JSON lines, for the command line to show."""

    def tell(document: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()

    try:
        task = ExportTask.model_validate_json(os.environ[ENVIRONMENT_VARIABLE])
        export(task, report=lambda done, total: tell({"done": done, "total": total}))
    except WarpctlError as error:
        tell({"error": error.message, "hint": error.hint})
        return error.exit_code
    except OSError as error:
        tell({"error": f"cannot write the model: {error}", "hint": "free some space, or choose another destination"})
        return EXIT_RETRYABLE
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
