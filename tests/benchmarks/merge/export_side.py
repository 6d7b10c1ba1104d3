"""Part e, one process: python -m tests.benchmarks.merge.export_side FOLDER WHAT [--write]; seconds and bytes as JSON.

WHAT is prepare (publish init and policy-1 as imports, with a tokenizer), export-float32, export-bfloat16 or load.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

from tests.benchmarks.merge.stage_store import publish
from warpctl.spec.stage_input import InputArtifact
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint

LITI_RATE = 0.3
ROLES = {"sft": "init", "source": "policy-1"}
INPUTS = "inputs.json"


def prepare(folder: Path, store: Store) -> None:
    from warpctl.tiny.tokenizer import make_tokenizer

    inputs = []
    for number, (role, name) in enumerate(ROLES.items()):
        make_tokenizer().save_pretrained(folder / name)
        inputs.append(publish(store, folder / name, role=role, key=f"{number:064d}").model_dump(mode="json"))
    (folder / INPUTS).write_text(json.dumps(inputs))


def artifacts_of(folder: Path, store: Store) -> list[Artifact]:
    inputs = json.loads((folder / INPUTS).read_text())
    return [Artifact.of(store, InputArtifact.model_validate(each)) for each in inputs]


def weight_bytes(artifact: Artifact) -> int:
    return sum(file.size for file in artifact.manifest.files if file.name.endswith(".safetensors"))


def export(folder: Path, artifacts: list[Artifact], dtype: str) -> int:
    """Bytes read and written."""
    from warpctl.workers.export_weights import write_weights

    target = folder / f"exported-{dtype}"
    sft, source = (Checkpoint.open(artifact) for artifact in artifacts)
    written: list[int] = []
    write_weights(
        Store.open(str(target)),
        sft,
        source,
        liti_rate=LITI_RATE,
        dtype=dtype,
        report=lambda _, total: written.append(total),
    )
    shutil.rmtree(target)
    return sum(map(weight_bytes, artifacts)) + written[-1]


def load(artifacts: list[Artifact]) -> int:
    """Bytes read: what the evaluator loads before its first point."""
    from warpctl.workers.policies import load_policy

    for artifact in artifacts:
        load_policy(artifact)
    return sum(map(weight_bytes, artifacts))


def prepare_imports(what: str) -> None:
    """Torch, transformers' model classes and the merge's kernels are not what is measured."""
    if what == "load":
        from transformers import LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401 - imported for good

        import warpctl.workers.policies
    else:
        import warpctl.workers.merge_arithmetic  # noqa: F401 - as above


def main() -> None:
    folder, what = Path(sys.argv[1]), sys.argv[2]
    store = Store.open(str(folder / "store"))
    if what == "prepare":
        prepare(folder, store)
        return
    artifacts = artifacts_of(folder, store)
    prepare_imports(what)
    start = time.perf_counter()
    num_bytes = load(artifacts) if what == "load" else export(folder, artifacts, what.removeprefix("export-"))
    seconds = time.perf_counter() - start
    (folder / f"{what}.json").write_text(json.dumps({"seconds": seconds, "bytes": num_bytes}))


if __name__ == "__main__":
    main()
