"""Checkpoints are written as one canonical layout that others can read, and never half."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.builders.checkpoints import SHAPES, random_weights, rounded
from warpctl.spec.stage_input import ImportTask, StageInput, StageKind
from warpctl.storage.artifact import Artifact
from warpctl.storage.checkpoint_writer import CheckpointWriter
from warpctl.storage.file_names import INDEX
from warpctl.storage.headers import MAX_SHARD_BYTES, TensorSpec, split_into_shards
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint

NAMES = sorted(SHAPES)
WEIGHTS = random_weights(1)
SPECS = [TensorSpec(name, shape) for name, shape in SHAPES.items()]


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def publication_of(store):
    stage = StageInput(
        stage_id="import/x", kind=StageKind.IMPORT, key="b" * 64, attempt_id="1", namespace="d", run="r",
        storage=store.root, task=ImportTask(what="Model", uri="memory://x", revision="main"),
    )  # fmt: skip
    return Publication(store, stage)


def written(store, publication):
    publication.commit()
    return Artifact.load(store, "import", "b" * 64)


def write_checkpoint(publication, *, specs, tensors, prefix="", dtype="F32", max_shard_bytes=MAX_SHARD_BYTES):
    with CheckpointWriter(
        publication, prefix=prefix, specs=specs, dtype=dtype, max_shard_bytes=max_shard_bytes
    ) as writer:
        for name, values in tensors:
            writer.append(name, values)


@pytest.mark.parametrize("max_shard_bytes", [10, 300, 1000, 10**9])
def test_what_is_written_reads_back_and_is_what_the_safetensors_library_reads(store, tmp_path, max_shard_bytes):
    publication = publication_of(store)
    write_checkpoint(
        publication, prefix="merged/", specs=SPECS, tensors=[(name, WEIGHTS[name]) for name in NAMES],
        max_shard_bytes=max_shard_bytes,
    )  # fmt: skip
    artifact = written(store, publication)
    checkpoint = Checkpoint.open(artifact, prefix="merged/")
    assert {name: checkpoint.read(name).tobytes() for name in NAMES} == {n: WEIGHTS[n].tobytes() for n in NAMES}
    folder = artifact.download(tmp_path / "copy", prefix="merged/")
    theirs = {}
    for path in folder.glob("*.safetensors"):
        theirs.update(load_file(path))
    assert {name: theirs[name].tobytes() for name in NAMES} == {name: WEIGHTS[name].tobytes() for name in NAMES}
    shards = split_into_shards(SPECS, max_shard_bytes=max_shard_bytes)
    assert (folder / INDEX).exists() is (len(shards) > 1)
    assert sorted(path.name for path in folder.glob("*.safetensors")) == [shard.file for shard in shards]
    assert [(folder / shard.file).stat().st_size for shard in shards] == [shard.size for shard in shards]


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_a_checkpoint_can_be_written_in_a_narrow_dtype(store, dtype):
    publication = publication_of(store)
    write_checkpoint(publication, specs=SPECS, tensors=[(name, WEIGHTS[name]) for name in NAMES], dtype=dtype)
    checkpoint = Checkpoint.open(written(store, publication))
    expected = rounded(WEIGHTS, dtype)
    assert all(checkpoint.read(name).tobytes() == expected[name].tobytes() for name in NAMES)
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {dtype}


def test_a_tensor_may_come_in_blocks_of_any_layout_and_may_be_empty_or_scalar(store):
    specs = [TensorSpec("a", (2, 3)), TensorSpec("b", ()), TensorSpec("c", (0, 3)), TensorSpec("d", (2,))]
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    publication = publication_of(store)
    with CheckpointWriter(publication, prefix="", specs=specs) as writer:
        writer.append("a", values[:1])
        writer.append("a", np.asfortranarray(values)[1:])
        writer.append("b", np.array(7, np.float32))
        writer.append("c", np.empty((0, 3), np.float32))
        writer.append("d", np.array([8, 9], np.float32))
    checkpoint = Checkpoint.open(written(store, publication))
    assert checkpoint.read("a").tolist() == values.tolist()
    assert checkpoint.read("b").tolist() == 7
    assert checkpoint.read("c").shape == (0, 3)
    assert checkpoint.read("d").tolist() == [8, 9]


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ([("b", 5)], "5 values of b came, 10 more of a expected"),
        ([("a", 11)], "11 values of a came, 10 more of a expected"),
        ([("a", 4), ("a", 7)], "7 values of a came, 6 more of a expected"),
        ([("a", 10), ("b", 5), ("c", 1)], "1 values of c came, nothing more expected"),
        ([("a", 10)], "before all its tensors were written"),
        ([("a", 10), ("b", 4)], "before all its tensors were written"),
    ],
)
def test_tensors_that_come_wrong_are_refused_and_leave_no_half_shard(store, calls, message):
    publication = publication_of(store)
    specs = [TensorSpec("a", (10,)), TensorSpec("b", (5,))]
    zeros = [(name, np.zeros(size, np.float32)) for name, size in calls]
    with pytest.raises(ValueError, match=message):
        write_checkpoint(publication, specs=specs, tensors=zeros)
    is_whole = sum(size for _, size in calls) == 16  # the shard itself was fine, what came behind it was not
    assert written(store, publication).names() == (("model.safetensors",) if is_whole else ())


def test_a_writer_left_by_an_exception_keeps_whole_shards_and_drops_the_half_written_one(store):
    publication = publication_of(store)
    specs = [TensorSpec("a", (10,)), TensorSpec("b", (10,)), TensorSpec("c", (10,))]

    def tensors():
        yield "a", np.zeros(10, np.float32)
        yield "b", np.zeros(5, np.float32)
        raise KeyError

    with pytest.raises(KeyError):
        write_checkpoint(publication, specs=specs, tensors=tensors(), max_shard_bytes=40)
    assert written(store, publication).names() == ("model-00001-of-00003.safetensors",)


def test_the_index_of_what_is_written_is_what_transformers_expects(store):
    publication = publication_of(store)
    write_checkpoint(publication, specs=SPECS, tensors=[(name, WEIGHTS[name]) for name in NAMES], max_shard_bytes=300)
    found = json.loads(written(store, publication).read(INDEX))
    assert found["metadata"]["total_size"] == sum(value.nbytes for value in WEIGHTS.values())
    assert set(found["weight_map"]) == set(NAMES)


def test_values_that_have_the_stored_type_are_written_as_they_are_and_others_but_float32_refused(store):
    publication = publication_of(store)
    stored = np.arange(16, dtype=np.uint16)
    specs = [TensorSpec("w", (16,))]
    with CheckpointWriter(publication, prefix="a/", specs=specs, dtype="BF16") as writer:
        writer.append("w", stored)
    with pytest.raises(ValueError, match="uint16"), CheckpointWriter(publication, prefix="b/", specs=specs) as writer:
        writer.append("w", stored)
    found = Checkpoint.open(written(store, publication), prefix="a/").read_raw("w")
    assert (found.dtype, found.tobytes()) == (np.uint16, stored.tobytes())
