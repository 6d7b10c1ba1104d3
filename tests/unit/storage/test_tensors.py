"""Checkpoints are read whatever their sharding and dtype."""

from __future__ import annotations

import numpy as np
import pytest

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
from warpctl.storage.artifact import Artifact
from warpctl.storage.file_names import INDEX
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint

NAMES = sorted(SHAPES)
WEIGHTS = random_weights(1)


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def opened(store, files, prefix=""):
    return Checkpoint.open(Artifact.of(store, publish(store, files, key="a" * 64, role="init")), prefix=prefix)


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
