"""Weights chunk by chunk: whatever lies in a chunk, all bits arrive, each chunk is read once and damage is noticed."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from tests.builders.checkpoints import as_dtype, model_files, random_weights, safetensors_bytes
from warpctl.errors import CorruptError
from warpctl.storage.artifact import Artifact
from warpctl.storage.manifest import FileEntry, Manifest, digest_of
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint
from warpctl.workers.policy_weights import fill_weights, read_weights

SHAPES = {"a.bias": (3,), "a.weight": (40, 7), "empty": (0, 4), "large": (30, 70), "norm": (), "z.weight": (9, 5)}
WEIGHTS = random_weights(1, shapes=SHAPES)
TYPES = {name: ("BF16", "F16", "F32")[number % 3] for number, name in enumerate(sorted(SHAPES))}


def an_artifact(files: Mapping[str, bytes], chunk_bytes: int, store: Store | None = None) -> Artifact:
    store = store or Store.open("memory://policy-weights")
    entries = []
    for name, data in files.items():
        store.write(name, data)
        chunks = tuple(digest_of(data[start : start + chunk_bytes]) for start in range(0, len(data), chunk_bytes))
        entries.append(FileEntry(name=name, path=name, size=len(data), chunks=chunks))
    manifest = Manifest(
        kind="import", key="k", attempt_id="a", stage_id="import/sft", chunk_bytes=chunk_bytes, files=tuple(entries),
        content_digest="", started_at="", ended_at="",
    )  # fmt: skip
    return Artifact(store, manifest)


def assert_read_right(artifact: Artifact) -> None:
    checkpoint = Checkpoint.open(artifact)
    weights = read_weights(artifact, checkpoint.tensors)
    assert weights.keys() == checkpoint.tensors.keys()
    for name, weight in weights.items():
        expected = checkpoint.read(name)
        assert weight.dtype == torch.float32
        assert tuple(weight.shape) == expected.shape
        assert weight.numpy().tobytes() == expected.tobytes(), name


@pytest.mark.parametrize("chunk_bytes", [4, 7, 10, 64, 1000, 1 << 20])
@pytest.mark.parametrize("shards", [None, [["z.weight", "a.bias"], ["large"], ["norm", "empty", "a.weight"]]])
def test_all_types_arrive_as_float32_whatever_a_chunk_holds(chunk_bytes: int, shards: list[list[str]] | None) -> None:
    """Chunks smaller than an element's neighbours, of a length that no element divides, and of several tensors."""
    assert_read_right(an_artifact(model_files(WEIGHTS, dtype=TYPES, shards=shards), chunk_bytes))


@pytest.mark.parametrize("pad", [1, 2, 3])
def test_a_header_of_any_length_is_read(pad: int) -> None:
    """Elements then lie across the ends of chunks."""
    data = safetensors_bytes([(name, as_dtype(WEIGHTS[name], TYPES[name]), TYPES[name]) for name in SHAPES])
    length = int.from_bytes(data[:8], "little")
    moved = (length + pad).to_bytes(8, "little") + data[8 : 8 + length] + b" " * pad + data[8 + length :]

    assert_read_right(an_artifact({"model.safetensors": moved}, 64))


def test_tensors_that_share_their_bytes_are_read() -> None:
    header = {
        "whole": {"dtype": "F32", "shape": [50], "data_offsets": [0, 200]},
        "part": {"dtype": "F32", "shape": [10], "data_offsets": [20, 60]},
    }
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    data = np.arange(50, dtype=np.float32).tobytes()

    assert_read_right(an_artifact({"model.safetensors": len(head).to_bytes(8, "little") + head + data}, 64))


def test_each_chunk_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = an_artifact(model_files(WEIGHTS, dtype=TYPES), 64)
    tensors = Checkpoint.open(artifact).tensors
    reads: list[int] = []
    read_into = Store.read_into
    monkeypatch.setattr(
        Store,
        "read_into",
        lambda store, path, start, target: reads.append(start) or read_into(store, path, start, target),
    )

    read_weights(artifact, tensors)

    assert sorted(reads) == list(range(0, artifact.entry("model.safetensors").size, 64))


def test_what_has_no_target_is_left_out() -> None:
    artifact = an_artifact(model_files(WEIGHTS, dtype=TYPES), 64)
    target = torch.zeros(SHAPES["large"])

    fill_weights(artifact, Checkpoint.open(artifact).tensors, {"large": target})

    assert target.numpy().tobytes() == Checkpoint.open(artifact).read("large").tobytes()


def test_weights_reach_another_device_as_they_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the bytes of float32; widened there."""
    artifact = an_artifact(model_files(WEIGHTS, dtype=TYPES), 1 << 20)
    targets = {name: torch.empty(shape, device="meta") for name, shape in SHAPES.items()}
    sent: list[torch.dtype] = []
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: sent.append(tensor.dtype) or to(tensor, device))

    fill_weights(artifact, Checkpoint.open(artifact).tensors, targets)

    types = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    assert sorted(map(str, sent)) == sorted(str(types[dtype]) for dtype in TYPES.values())


def test_parameters_are_overwritten_where_they_are() -> None:
    artifact = an_artifact(model_files(WEIGHTS, dtype=TYPES), 64)
    target = torch.nn.Parameter(torch.zeros(SHAPES["large"]))
    place = target.data_ptr()

    fill_weights(artifact, Checkpoint.open(artifact).tensors, {"large": target})

    assert target.data_ptr() == place
    assert target.requires_grad
    assert target.abs().sum() > 0


def test_an_altered_chunk_is_an_error() -> None:
    store = Store.open("memory://policy-weights-altered")
    files = model_files(WEIGHTS, dtype=TYPES)
    artifact = an_artifact(files, 64, store)
    tensors = Checkpoint.open(artifact).tensors
    data = bytearray(files["model.safetensors"])
    data[-70] ^= 1
    store.write("model.safetensors", bytes(data))

    with pytest.raises(CorruptError, match="its bytes were altered"):
        read_weights(artifact, tensors)
