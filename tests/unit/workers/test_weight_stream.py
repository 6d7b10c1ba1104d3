"""Weights one after the other: each of them once, whatever a load holds, in bounded memory; exports that numpy would give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.builders.checkpoints import model_files, moved, publish, random_weights
from warpctl.merging.liti import liti, round_once, round_once_to_bfloat16
from warpctl.merging.task_vector import BLOCK_ELEMENTS
from warpctl.storage.artifact import Artifact
from warpctl.storage.headers import TensorSpec
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint, to_float32
from warpctl.workers import merge_reading
from warpctl.workers.export_weights import write_weights
from warpctl.workers.merge_reading import Reader
from warpctl.workers.weight_stream import weight_stream

SHAPES = {
    "a.bias": (3,),
    "a.weight": (40, 7),
    "empty": (0, 4),
    "large": (3, BLOCK_ELEMENTS + 17),
    "norm": (),
    "z.weight": (9, 5),
}
WEIGHTS = random_weights(1, shapes=SHAPES)
OTHERS = moved(WEIGHTS, 2)
SPECS = [TensorSpec(name, shape) for name, shape in sorted(SHAPES.items())]


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Checkpoint, Checkpoint]:
    """The same tensors in other types, orders and files."""
    store = Store.open(str(tmp_path / "store"))
    types = {name: ("BF16", "F16", "F32")[number % 3] for number, name in enumerate(sorted(SHAPES))}
    shards = [["z.weight", "a.bias"], ["large"], ["norm", "empty", "a.weight"]]
    files = model_files(WEIGHTS, dtype=types, shards=shards), model_files(OTHERS)
    published = [publish(store, each, key=str(number) * 64, role="x") for number, each in enumerate(files)]
    first, second = (Checkpoint.open(Artifact.of(store, each)) for each in published)
    return first, second


@pytest.mark.parametrize("load_bytes", [1, 600, 400_000, 1 << 24])
def test_every_value_of_every_input_comes_once_and_in_order(inputs: Sequence[Checkpoint], load_bytes: int) -> None:
    found: dict[str, list[list[np.ndarray]]] = {}
    ends = dict.fromkeys(SHAPES, 0)
    with weight_stream(SPECS, *inputs, load_bytes=load_bytes) as parts:
        for name, elements, stored_K in parts:
            assert elements.start == ends[name]
            assert [stored_N.size for stored_N in stored_K] == [elements.stop - elements.start] * 2
            found.setdefault(name, []).append([stored_N.copy() for stored_N in stored_K])
            ends[name] = elements.stop

    assert list(found) == sorted(SHAPES)
    for name, blocks in found.items():
        for number, checkpoint in enumerate(inputs):
            whole = np.concatenate([block[number] for block in blocks])
            assert whole.tobytes() == checkpoint.read_raw(name).tobytes()
    assert len(found["large"]) == {1: 4, 600: 4, 400_000: 4}.get(load_bytes, 1)


def test_memory_is_two_loads(inputs: Sequence[Checkpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    empty = np.empty
    monkeypatch.setattr(merge_reading.np, "empty", lambda size, kind: (made.append(size), empty(size, kind))[1])
    with weight_stream(SPECS, *inputs, load_bytes=200_000) as parts:
        assert len(list(parts)) > len(SPECS)

    assert made == [2 * 200_000]


def test_who_leaves_early_leaves_no_thread_behind(
    inputs: Sequence[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[bool] = []
    leave = Reader.__exit__
    monkeypatch.setattr(Reader, "__exit__", lambda reader, *error: left.append(True) or leave(reader, *error))

    def first_part_only() -> None:
        with weight_stream(SPECS, *inputs, load_bytes=600) as parts:
            next(parts)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        first_part_only()

    assert left, caught  # the traceback, which holds the generator, is still there


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("liti_rate", [0.0, 0.3, 1.0, 1.7])
def test_an_export_has_the_bits_of_the_formula_in_numpy(
    inputs: Sequence[Checkpoint], tmp_path: Path, dtype: str, liti_rate: float
) -> None:
    out = tmp_path / "out"
    write_weights(
        Store.open(str(out)),
        *inputs,
        liti_rate=liti_rate,
        dtype=dtype,
        report=lambda _done, _total: None,
        max_shard_bytes=100_000,
        load_bytes=300_000,
    )

    stored = (out / "model.safetensors.index.json").read_text()
    assert all(f'"{name}"' in stored for name in SHAPES)
    found = b"".join(path.read_bytes()[_head(path.read_bytes()) :] for path in sorted(out.glob("model-*")))
    rounded = round_once if dtype == "float32" else round_once_to_bfloat16
    wide = ([to_float32(each.read_raw(name)).astype(np.float64) for each in inputs] for name in sorted(SHAPES))
    assert found == b"".join(rounded(liti(*pair, liti_rate=liti_rate)).tobytes() for pair in wide)


def _head(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")
