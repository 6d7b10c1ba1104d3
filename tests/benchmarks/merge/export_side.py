"""Part e, one process: python -m tests.benchmarks.merge.export_side FOLDER WHAT; what WHAT itself took, as JSON.

WHAT is prepare (publish init and policy-1 as imports, with a tokenizer, and a small policy), export-float32, export-bfloat16, load
(what an evaluation loads before the one point of a source: the SFT policy, then the source on its way to that point's
weights), load-kept (the same before several points of it), or verify (the same bytes read and verified, and nothing else).
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from decimal import Decimal
from functools import partial
from pathlib import Path

from tests.benchmarks.blocks import peak_memory_bytes
from tests.benchmarks.merge.architecture import LLAMA
from tests.benchmarks.merge.checkpoint import write
from tests.benchmarks.merge.stage_store import publish
from warpctl.spec.stage_input import InputArtifact
from warpctl.storage.artifact import Artifact
from warpctl.storage.file_names import WEIGHTS
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint

LITI_RATE = Decimal("0.3")
ROLES = {"sft": "init", "source": "policy-1", "small": "small"}
INPUTS = "inputs.json"
SMALL = 1e-5


def prepare(folder: Path, store: Store) -> None:
    from warpctl.tiny.tokenizer import make_tokenizer

    small = folder / ROLES["small"]
    if not small.exists():  # of an earlier run
        write(LLAMA.scaled(SMALL), small, member=0, is_sparse=False)
    inputs = {}
    for number, (role, name) in enumerate(ROLES.items()):
        make_tokenizer().save_pretrained(folder / name)
        inputs[role] = publish(store, folder / name, role=role, key=f"{number:064d}").model_dump(mode="json")
    (folder / INPUTS).write_text(json.dumps(inputs))


def artifacts_of(folder: Path, store: Store) -> dict[str, Artifact]:
    inputs = json.loads((folder / INPUTS).read_text())
    return {role: Artifact.of(store, InputArtifact.model_validate(each)) for role, each in inputs.items()}


def weight_bytes(*artifacts: Artifact) -> int:
    return sum(file.size for artifact in artifacts for file in artifact.manifest.files if file.name.endswith(WEIGHTS))


def export(folder: Path, sft: Artifact, source: Artifact, dtype: str) -> int:
    """Bytes read and written."""
    from warpctl.workers.export_weights import write_weights

    target = folder / f"exported-{dtype}"
    written: list[int] = []
    write_weights(
        Store.open(str(target)),
        Checkpoint.open(sft),
        Checkpoint.open(source),
        liti_rate=float(LITI_RATE),
        dtype=dtype,
        report=lambda _, total: written.append(total),
    )
    shutil.rmtree(target)
    return weight_bytes(sft, source) + written[-1]


def load(sft: Artifact, source: Artifact, *, num_points: int) -> int:
    """Bytes read, up to the weights of the first point."""
    from contextlib import nullcontext

    from tests.builders.evaluations import evaluate_task
    from warpctl.workers.point_evaluation import Evaluator
    from warpctl.workers.policies import load_policy, read_policy
    from warpctl.workers.prompt_set import PromptSet

    model, vocabulary = load_policy(sft)
    prompts = PromptSet(texts=(), tokens=(), num_dropped=0, num_cut=0)
    evaluator = Evaluator(
        evaluate_task(), model, vocabulary=vocabulary, prompts=prompts, scorers={}, arithmetic=nullcontext
    )
    evaluator.load_source(partial(read_policy, source, ""), num_points=num_points)
    evaluator.set_weights(LITI_RATE)
    return weight_bytes(sft, source)


def verify(*artifacts: Artifact) -> int:
    """Bytes read."""
    for artifact in artifacts:
        for name in artifact.names():
            artifact.for_each_chunk(name, lambda _, __: None)
    return weight_bytes(*artifacts)


def prepare_imports(what: str, small: Artifact) -> None:
    """Torch, transformers' model classes and the merge's kernels are not what is measured."""
    if what.startswith("load"):
        load(small, small, num_points=1)
    elif what.startswith("export"):
        import warpctl.workers.merge_arithmetic  # noqa: F401 - imported for good


def main() -> None:
    folder, what = Path(sys.argv[1]), sys.argv[2]
    store = Store.open(str(folder / "store"))
    if what == "prepare":
        prepare(folder, store)
        return
    artifacts = artifacts_of(folder, store)
    sft, source, small = (artifacts[role] for role in ROLES)
    works = {
        "load": partial(load, sft, source, num_points=1),
        "load-kept": partial(load, sft, source, num_points=2),
        "verify": partial(verify, sft, source),
        "export-float32": partial(export, folder, sft, source, "float32"),
        "export-bfloat16": partial(export, folder, sft, source, "bfloat16"),
    }
    prepare_imports(what, small)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from here
    memory, cpu, start = peak_memory_bytes(), time.process_time(), time.perf_counter()
    num_bytes = works[what]()
    took = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": peak_memory_bytes() - memory,
        "bytes": num_bytes,
    }
    (folder / f"{what}.json").write_text(json.dumps(took))


if __name__ == "__main__":
    main()
