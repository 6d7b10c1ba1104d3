"""Checkpoints are read whatever their sharding and dtype, and written as one canonical layout that others can read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.builders.checkpoints import (
    MODEL_FILES,
    SHAPES,
    model_files,
    publish,
    random_weights,
    rounded,
    safetensors_bytes,
)
from warpctl.errors import CorruptError, InputError
from warpctl.spec.stage_input import ImportTask, StageInput, StageKind
from warpctl.storage.artifact import Artifact
from warpctl.storage.headers import INDEX, split_into_shards
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint, CheckpointWriter, TensorSpec, write_checkpoint

NAMES = sorted(SHAPES)
WEIGHTS = random_weights(1)
SPECS = [TensorSpec(name, shape) for name, shape in SHAPES.items()]


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def opened(store, files, prefix=""):
    return Checkpoint.open(Artifact.of(store, publish(store, files, key="a" * 64, role="init")), prefix=prefix)


def publication_of(store):
    stage = StageInput(
        stage_id="import/x", kind=StageKind.IMPORT, key="b" * 64, attempt_id="1", namespace="d", run="r",
        storage=store.root, task=ImportTask(what="Model", uri="memory://x", revision="main"),
    )  # fmt: skip
    return Publication(store, stage)


def written(store, publication):
    publication.commit()
    return Artifact.load(store, "import", "b" * 64)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("shards", [None, [NAMES[5:], NAMES[:5]], [[name] for name in NAMES]])
def test_a_tensor_reads_the_same_whatever_the_dtype_and_sharding(store, dtype, shards):
    checkpoint = opened(store, model_files(WEIGHTS, dtype=dtype, shards=shards))
    assert list(checkpoint.tensors) == NAMES
    expected = rounded(WEIGHTS, dtype)
    flat = checkpoint.read_flat_into(NAMES, memoryview(bytearray(checkpoint.flat_bytes(NAMES))))
    for name in NAMES:
        assert checkpoint.read(name).tobytes() == expected[name].tobytes()
        assert checkpoint.read(name).shape == tuple(SHAPES[name])
        assert flat[name].tobytes() == checkpoint.read_raw(name).tobytes()


def test_part_of_a_tensor_is_read_by_its_elements(store):
    checkpoint = opened(store, model_files(WEIGHTS))
    name = "model.embed_tokens.weight"
    wanted = WEIGHTS[name].ravel()[5:9].tolist()
    assert checkpoint.read_part(name, slice(5, 9)).tolist() == wanted
    buffer = memoryview(bytearray(checkpoint.part_bytes(name, slice(5, 9))))
    assert checkpoint.read_part_into(name, slice(5, 9), buffer).tolist() == wanted


def test_what_is_read_may_be_changed_by_its_reader(store):
    checkpoint = opened(store, model_files(WEIGHTS))
    values = checkpoint.read("model.norm.weight")
    values += 1
    assert checkpoint.read("model.norm.weight").tobytes() == WEIGHTS["model.norm.weight"].tobytes()


def test_neighbouring_tensors_are_read_with_one_request_and_far_ones_apart(store, monkeypatch):
    far = {"a": np.zeros(4, np.float32), "b": np.zeros(1_000_000, np.float32), "c": np.ones(4, np.float32)}
    files = {"model.safetensors": safetensors_bytes([(name, value, "F32") for name, value in far.items()])}
    checkpoint = opened(store, files)
    requests = []
    read_into = Artifact.read_into
    monkeypatch.setattr(Artifact, "read_into", lambda self, *args: (requests.append(args), read_into(self, *args))[1])

    def read(*names: str) -> dict[str, np.ndarray]:
        return checkpoint.read_flat_into(names, memoryview(bytearray(checkpoint.flat_bytes(names))))

    assert read("a", "b", "c")["c"].tolist() == [1, 1, 1, 1]
    assert len(requests) == 1
    assert read("a", "c")["c"].tolist() == [1, 1, 1, 1]
    assert len(requests) == 3


def test_an_empty_tensor_takes_nothing_from_its_neighbour(store):
    both = {"a": np.arange(4, dtype=np.float32), "z": np.zeros((0, 3), np.float32)}
    files = {"model.safetensors": safetensors_bytes([(name, both[name], "F32") for name in ("z", "a")])}
    checkpoint = opened(store, files)

    flat = checkpoint.read_flat_into(["a", "z"], memoryview(bytearray(checkpoint.flat_bytes(["a", "z"]))))

    assert (flat["a"].tolist(), flat["z"].tolist()) == ([0, 1, 2, 3], [])


def without(files, *names):
    return {name: data for name, data in files.items() if name not in names}


TWO_SHARDS = model_files(WEIGHTS, shards=[NAMES[:5], NAMES[5:]])
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (MODEL_FILES, "no model.safetensors and no model.safetensors.index.json among its 4 files"),
        ({"model.safetensors": safetensors_bytes([])}, "holds no tensors"),
        ({"model.safetensors": b"PK\x03\x04 a pickle"}, "is not a safetensors file"),
        ({"model.safetensors": model_files(WEIGHTS)["model.safetensors"][:-1]}, "ends at byte"),
        ({"model.safetensors": model_files(WEIGHTS)["model.safetensors"][:100]}, "ends at byte 100, its header at"),
        (without(TWO_SHARDS, SECOND), f"{SECOND} is named in {INDEX} but is not there"),
        ({**TWO_SHARDS, SECOND: TWO_SHARDS[FIRST]}, "is both in"),
        ({**TWO_SHARDS, SECOND: safetensors_bytes([])}, f"is not in {SECOND}, where {INDEX} has it"),
        ({**TWO_SHARDS, INDEX: b"{"}, "is malformed"),
        ({**TWO_SHARDS, INDEX: b"{}"}, "is malformed"),
        ({**TWO_SHARDS, INDEX: b"[]"}, "is malformed"),
    ],
)
def test_a_checkpoint_that_cannot_be_right_is_refused(store, files, message):
    with pytest.raises(InputError, match=message):
        opened(store, files)


def test_altered_bytes_are_noticed_when_they_are_read(store, tmp_path):
    checkpoint = opened(store, model_files(WEIGHTS))
    (path,) = (tmp_path / "store").rglob("model.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    fresh = Checkpoint(Artifact(store, checkpoint.artifact.manifest), "", checkpoint.tensors)
    with pytest.raises(CorruptError, match="chunk 0 of 1"):
        fresh.read("lm_head.weight")


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
    write_checkpoint(
        publication, prefix="", specs=SPECS, tensors=[(name, WEIGHTS[name]) for name in NAMES], dtype=dtype
    )
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
        write_checkpoint(publication, prefix="", specs=specs, tensors=zeros)
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
        write_checkpoint(publication, prefix="", specs=specs, tensors=tensors(), max_shard_bytes=40)
    assert written(store, publication).names() == ("model-00001-of-00003.safetensors",)


def test_the_index_of_what_is_written_is_what_transformers_expects(store):
    publication = publication_of(store)
    write_checkpoint(
        publication, prefix="", specs=SPECS, tensors=[(name, WEIGHTS[name]) for name in NAMES], max_shard_bytes=300
    )
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
