"""The serving copy of a merge: the merged policy in bfloat16 from the same pass, and nothing else changed by it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.checkpoints import SHAPES, model_files, moved, random_weights
from tests.builders.contexts import StopAfter
from tests.builders.merge_stage import KEY, context_of, inputs_of, merge_stage, run_merge
from warpctl import artifacts
from warpctl.errors import Interrupted
from warpctl.merging.groups import split_into_groups
from warpctl.merging.liti import put_back, round_once_to_bfloat16
from warpctl.merging.slerp import slerp
from warpctl.merging.task_vector import add_up, inner_products, task_gram
from warpctl.spec.stage_input import InputArtifact, StageInput, StageKind
from warpctl.spec.training import Granularity, ServingCopy, SlerpOrder
from warpctl.storage.artifact import Artifact
from warpctl.storage.bfloat16 import float32_to_bfloat16
from warpctl.storage.file_names import INDEX
from warpctl.storage.gc import WEIGHTS, plan_gc, sweep
from warpctl.storage.headers import parse_header
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint
from warpctl.storage.wanted import Keep, Wanted, WantedStage, write_wanted
from warpctl.workers.merge import main

INIT = random_weights(0)
MEMBERS = [moved(INIT, seed) for seed in (1, 2)]
LIMIT = 400


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[InputArtifact, ...]:
    return inputs_of(Store.open(str(tmp_path)), [model_files(model) for model in (INIT, *MEMBERS)])


def stage(tmp_path: Path, inputs: Any, attempt: str = "a1", *, copy: ServingCopy = ServingCopy.BFLOAT16) -> StageInput:
    return merge_stage(str(tmp_path), inputs, attempt=attempt, serving_copy=copy)


def content(artifact: Artifact) -> dict[str, bytes]:
    return {name: artifact.read(name) for name in artifact.names()}


def merged_exactly() -> dict[str, np.ndarray]:
    """The merged policy in float64, as the formulas in numpy give it."""
    merged = {}
    for group in split_into_groups(INIT, Granularity.LAYER):
        wide = {
            name: np.stack([model[name].ravel().astype(np.float64) for model in (INIT, *MEMBERS)])
            for name in group.tensors
        }
        products_KK = add_up(np.stack([inner_products(weights_KN) for weights_KN in wide.values()]))
        weights = slerp(task_gram(products_KK), SlerpOrder.PAPER).weights
        merged |= {name: put_back(weights_KN, weights) for name, weights_KN in wide.items()}
    return merged


def test_each_value_is_rounded_once_from_float64(tmp_path: Path, inputs: Any) -> None:
    checkpoint = Checkpoint.open(run_merge(stage(tmp_path, inputs)), prefix="serving/")

    exact = merged_exactly()
    assert sorted(checkpoint.tensors) == sorted(SHAPES)
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {"BF16"}
    for name, values in exact.items():
        assert checkpoint.read_raw(name).tobytes() == round_once_to_bfloat16(values).tobytes()


def test_once_and_not_by_way_of_the_float32_policy(tmp_path: Path) -> None:
    """Half an ulp of float32 above a tie of bfloat16: float32 rounds it to the tie, and that would go down."""
    tie = np.float32(1 + 2**-8)
    init = {"w": np.array([tie, 1.0], np.float32)}
    moved_one = {"w": np.array([np.nextafter(tie, np.float32(2)), 1.0], np.float32)}
    inputs = inputs_of(Store.open(str(tmp_path)), [model_files(model) for model in (init, moved_one, init)])
    artifact = run_merge(stage(tmp_path, inputs))
    merged, serving = (Checkpoint.open(artifact, prefix=prefix) for prefix in ("merged/", "serving/"))

    assert merged.read("w").tolist() == init["w"].tolist()
    assert float32_to_bfloat16(merged.read("w")).tolist() == [0x3F80, 0x3F80]
    assert serving.read_raw("w").tolist() == [0x3F81, 0x3F80]


def test_merged_policy_and_next_init_are_those_of_a_merge_without_it(tmp_path: Path, inputs: Any) -> None:
    plain = content(run_merge(stage(tmp_path, inputs, copy=ServingCopy.NO_COPY), max_shard_bytes=LIMIT))
    Store.open(str(tmp_path)).delete_tree(artifacts.stage("merge", KEY))
    both = content(run_merge(stage(tmp_path, inputs), max_shard_bytes=LIMIT))

    serving = {name: data for name, data in both.items() if name.startswith("serving/")}
    report = json.loads(both["merge.json"])
    assert serving
    assert report.pop("servingCopy") == "BFloat16"
    assert report == json.loads(plain["merge.json"])
    assert {**both, "merge.json": b""} == {**plain, **serving, "merge.json": b""}


def test_it_is_a_whole_model_cut_at_the_same_tensors(tmp_path: Path, inputs: Any) -> None:
    artifact = run_merge(stage(tmp_path, inputs), max_shard_bytes=LIMIT)

    names = {
        prefix: [name.removeprefix(prefix) for name in artifact.names(prefix)] for prefix in ("serving/", "merged/")
    }
    assert names["serving/"] == names["merged/"]
    maps = [json.loads(artifact.read(prefix + INDEX))["weight_map"] for prefix in names]
    assert maps[0] == maps[1]
    assert len(set(maps[0].values())) > 2
    config = json.loads(artifact.read("serving/config.json"))
    assert config == {"model_type": "tiny", "dtype": "bfloat16", "text_config": {"torch_dtype": "bfloat16"}}
    assert artifact.read("serving/tokenizer.json") == artifact.read("merged/tokenizer.json")


@pytest.mark.parametrize("max_shard_bytes", [1, 3, 101, 168, 169, 401, 1_000])
def test_any_limit_cuts_both_at_the_same_tensors(tmp_path: Path, inputs: Any, max_shard_bytes: int) -> None:
    artifact = run_merge(stage(tmp_path, inputs), max_shard_bytes=max_shard_bytes)

    cuts = []
    for prefix in ("merged/", "serving/"):
        checkpoint = Checkpoint.open(artifact, prefix=prefix)
        cuts.append({name: tensor.file.removeprefix(prefix) for name, tensor in checkpoint.tensors.items()})
    assert cuts[0] == cuts[1]


@pytest.mark.parametrize("groups", range(1, 7))
def test_stopped_and_started_again_it_has_the_same_bytes(tmp_path: Path, inputs: Any, groups: int) -> None:
    store = Store.open(str(tmp_path))
    whole = content(run_merge(stage(tmp_path, inputs), max_shard_bytes=LIMIT))
    store.delete_tree(artifacts.stage("merge", KEY))
    context = context_of(stage(tmp_path, inputs))
    context.stop = StopAfter(groups)
    with pytest.raises(Interrupted):
        main(context, max_shard_bytes=LIMIT)

    again = run_merge(stage(tmp_path, inputs, "a2"), max_shard_bytes=LIMIT)

    assert content(again) == whole
    by_shard: dict[str, set[str]] = {}
    for file in again.manifest.files:
        if file.name.endswith(WEIGHTS):
            by_shard.setdefault(file.name.split("/")[-1], set()).add(file.path.split("/attempts/")[1].split("/")[0])
    assert all(len(attempts) == 1 for attempts in by_shard.values())
    assert groups < 5 or {"a1"} in by_shard.values()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=str)
def test_several_nodes_publish_what_one_does(tmp_path: Path, inputs: Any, order: tuple[int, ...]) -> None:
    store = Store.open(str(tmp_path))
    alone = content(run_merge(stage(tmp_path, inputs), max_shard_bytes=LIMIT))
    store.delete_tree(artifacts.stage("merge", KEY))

    for rank in order:
        context = context_of(stage(tmp_path, inputs, f"1-job-{rank}-pod"))
        context.rank, context.num_nodes = rank, len(order)
        main(context, max_shard_bytes=LIMIT)

    assert content(Artifact.load(store, StageKind.MERGE, KEY)) == alone


def test_a_shard_is_not_kept_while_its_serving_copy_is_missing(tmp_path: Path, inputs: Any) -> None:
    """An attempt whose state names two files of a shard of three: all three are made again."""
    store = Store.open(str(tmp_path))
    whole = content(run_merge(stage(tmp_path, inputs), max_shard_bytes=LIMIT))
    (state,) = [
        file.path
        for file in store.list("stages/merge")
        if file.path.endswith("/merge.json") and "/resume/" in file.path
    ][-1:]
    told = json.loads(store.read(state))
    told["files"] = [entry for entry in told["files"] if not entry["name"].startswith("serving/")]
    for file in store.list("stages/merge"):
        if "/resume/" in file.path and file.path != state:
            store.delete(file.path)
    store.write(state, json.dumps(told).encode())
    store.delete(artifacts.marker("merge", KEY))

    again = run_merge(stage(tmp_path, inputs, "a2"), max_shard_bytes=LIMIT)

    assert content(again) == whole
    assert {file.path.split("/attempts/")[1].split("/")[0] for file in again.manifest.files} == {"a2"}


def test_its_weights_are_collected_with_the_others_and_its_record_stays(tmp_path: Path, inputs: Any) -> None:
    store = Store.open(str(tmp_path))
    run_merge(stage(tmp_path, inputs))
    roots = [WantedStage(kind=StageKind(each.kind), key=each.key) for each in inputs]
    roots.append(WantedStage(kind=StageKind.MERGE, key=KEY, keep=Keep.RECORD))
    write_wanted(store, Wanted(namespace="ns", name="r", stages=tuple(roots), written_at="2026-01-01T00:00:00.000Z"))

    sweep(store, plan_gc(store, now=datetime.now(UTC), min_age=timedelta(0)))

    left = {file.path.split("/files/")[-1] for file in store.list(f"stages/merge/{KEY}") if "/files/" in file.path}
    assert left & {"serving/config.json", "serving/model.safetensors"} == {"serving/config.json"}


def test_the_head_of_a_shard_says_bfloat16(tmp_path: Path, inputs: Any) -> None:
    data = run_merge(stage(tmp_path, inputs)).read("serving/model.safetensors")
    end = 8 + int.from_bytes(data[:8], "little")

    assert {tensor.dtype for tensor in parse_header(data[8:end], file="x", file_bytes=len(data))} == {"BF16"}
