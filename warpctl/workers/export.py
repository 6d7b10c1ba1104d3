"""Write one point of the front as a model folder that transformers loads: weights, config, tokenizer, model card.

Beside the model lie warprun.yaml (the spec) and front.json (every evaluated point), so that whoever has the folder can
see where it stands. config.json is written after the weights and the record warpctl-export.json last: a folder without a
finished record is no model yet, and the next export into it starts anew.
For hf:// the same folder is made in a temporary place and uploaded in one commit.
It decides nothing: the command line chose the point and pinned its artifacts. No torch.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field

from warpctl.errors import EXIT_DONE, EXIT_RETRYABLE, InputError, WarpctlError
from warpctl.spec.base import DecimalText, SpecModel
from warpctl.spec.stage_input import InputArtifact
from warpctl.storage.artifact import Artifact
from warpctl.storage.file_names import CONFIG, MERGE_RECORD
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint
from warpctl.workers.export_weights import Report, write_weights
from warpctl.workers.model_card import model_card
from warpctl.workers.model_config import config_with_dtype

RECORD = "warpctl-export.json"
SPEC = "warprun.yaml"
FRONT = "front.json"
HUB_SCHEME = "hf://"
_NOT_OF_THE_MODEL = frozenset({MERGE_RECORD, "metrics.jsonl", "README.md"})
_TOKENIZER_FILES = frozenset(
    {"tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt"}
)
_PROMISED = ("generation_config.json", "chat_template.jinja", "chat_template.json", "tokenizer_config.json")
"""What the SFT policy's folder has of these, the exported one has too."""


class ExportTask(SpecModel):
    """What to write, and where."""

    storage: str
    """Root of the run's store."""
    destination: str
    """Folder, URI prefix, or hf://owner/name."""
    sft: InputArtifact
    source: InputArtifact
    """The merged policy or an RL run's policy."""
    source_prefix: str = ""
    files: InputArtifact
    """Whose config, tokenizer, generation config and chat template are copied."""
    files_prefix: str = ""
    liti_rate: DecimalText = Decimal(1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    card: dict[str, Any] = Field(default_factory=dict)
    """What the model card says, see model_card.py."""
    spec: str = ""
    """The WarpRun, as YAML."""
    front: dict[str, Any] | None = None
    """front.json of the run's newest report; None before the first."""


def export(task: ExportTask, *, report: Report = lambda _done, _total: None) -> None:
    """Write the folder. `report` is told bytes done and in total."""
    _write(task, Store.open(task.destination), report)


def _write(task: ExportTask, target: Store, report: Report) -> None:
    store = Store.open(task.storage)
    files, sft_files = Artifact.of(store, task.files), Artifact.of(store, task.sft)
    names = model_files(files, task.files_prefix, sft_files)
    sft = Checkpoint.open(sft_files)
    source = Checkpoint.open(Artifact.of(store, task.source), prefix=task.source_prefix)
    without = {"storage", "destination", "spec", "front"}
    record = {"warpctlExport": 1, **task.model_dump(mode="json", by_alias=True, exclude=without)}

    for file in target.leftovers(""):  # of an export that was killed: nobody else sees them
        target.delete(file.path)
    target.write(RECORD, _json({**record, "isComplete": False}))
    write_weights(target, sft, source, liti_rate=float(task.liti_rate), dtype=task.dtype, report=report)
    for name in names:
        target.write(name.removeprefix(task.files_prefix), files.read(name))
    if task.spec:
        target.write(SPEC, task.spec.encode())
    if task.front is not None:
        target.write(FRONT, _json(task.front))
    target.write("README.md", model_card({**task.card, "dtype": task.dtype}, task.front).encode())
    config = files.read(task.files_prefix + CONFIG)
    target.write(CONFIG, config_with_dtype(config, task.dtype, source="the exported policy"))
    target.write(RECORD, _json({**record, "isComplete": True}))


def model_files(files: Artifact, prefix: str, sft: Artifact) -> list[str]:
    """Everything beside the weights, but for config.json, which is written last.

    InputError when something is missing without which the folder is not the model that was trained: config.json, a
    tokenizer, or what the SFT policy has of generation config, tokenizer config and chat template.
    """
    names = {name.removeprefix(prefix) for name in files.names(prefix)}
    kept = {
        name
        for name in names
        if "/" not in name
        and not name.endswith((".safetensors", ".safetensors.index.json"))
        and name not in _NOT_OF_THE_MODEL
    }
    missing = [name for name in (CONFIG, *_PROMISED) if name not in kept and (name == CONFIG or name in sft.names())]
    if not kept & _TOKENIZER_FILES:
        missing.append("tokenizer")
    if missing:
        raise InputError(
            f"the policy of {files.manifest.stage_id} has no {', no '.join(missing)}, and a model without is not the one "
            "that was trained",
            hint="add it to the folder of spec.models.sft.uri, change spec.models.sft.revision, and run again",
        )
    return sorted(prefix + name for name in kept - {CONFIG})


def push(task: ExportTask, *, report: Report) -> str:
    """Make the folder in a temporary place and upload it to a hub in one commit; returns that commit's address."""
    from warpctl.workers.hub_upload import upload_folder

    with tempfile.TemporaryDirectory(prefix="warpctl-export-") as folder:
        _write(task, Store.open(folder), report)
        return upload_folder(folder, task.destination, environment=os.environ)


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def main() -> int:
    """Read the task from stdin; progress and errors go to stdout as JSON lines, for the command line to show."""

    def tell(document: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()

    def progress(done: int, total: int) -> None:
        tell({"done": done, "total": total})

    try:
        task = ExportTask.model_validate_json(sys.stdin.read())
        if task.destination.startswith(HUB_SCHEME):
            tell({"pushed": push(task, report=progress)})
        else:
            export(task, report=progress)
    except WarpctlError as error:
        tell({"error": error.message, "hint": error.hint})
        return error.exit_code
    except OSError as error:
        tell({"error": f"cannot write the model: {error}", "hint": "free some space, or choose another destination"})
        return EXIT_RETRYABLE
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
