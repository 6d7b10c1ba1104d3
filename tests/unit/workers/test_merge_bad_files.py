"""A weight file that was cut or is of a wrong type, as input of the merge stage and of `warpctl merge`: refused, named, nothing made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.builders.checkpoints import model_files, moved, random_weights
from tests.builders.merge_stage import KEY, inputs_of, merge_files, merge_stage, run_merge
from tests.builders.model_folder import write_folder
from warpctl import artifacts
from warpctl.cli.main import run_command
from warpctl.errors import CorruptError, InputError
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store

INIT = random_weights(0)
NAMES = sorted(INIT)
ONE, TWO = moved(INIT, 1), moved(INIT, 2)
FIRST, SECOND = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
Files = Mapping[str, bytes]


def two_shards() -> dict[str, bytes]:
    return model_files(TWO, shards=[NAMES[:6], NAMES[6:]])


def cut(length: int) -> Callable[[], Files]:
    """The second shard, `length` bytes of it; from its end where negative."""
    return lambda: {**two_shards(), SECOND: two_shards()[SECOND][:length]}


def of_type(name: str, values: np.ndarray) -> Callable[[], Files]:
    """One tensor of a type that no weights have."""

    def files() -> Files:
        shard = two_shards()[FIRST]
        length = int.from_bytes(shard[:8], "little")
        header, data = json.loads(shard[8 : 8 + length]), shard[8 + length :]
        entry = header[NAMES[0]]
        entry |= {"dtype": name, "data_offsets": [len(data), len(data) + values.nbytes], "shape": list(values.shape)}
        text = json.dumps(header).encode()
        return {**two_shards(), FIRST: len(text).to_bytes(8, "little") + text + data + values.tobytes()}

    return files


def without_a_shard() -> Files:
    return {name: data for name, data in two_shards().items() if name != SECOND}


SHAPE = INIT[NAMES[0]].shape
BAD: dict[str, tuple[Callable[[], Files], str]] = {
    "a shard lacks its last byte": (cut(-1), f"{SECOND} ends at byte"),
    "a shard ends within its header": (cut(50), f"{SECOND} ends at byte 50, its header at byte"),
    "a shard is empty": (cut(0), f"{SECOND} is not a safetensors file"),
    "a shard is not there": (without_a_shard, f"{SECOND} is named in model.safetensors.index.json but is not there"),
    "a tensor of integers": (
        of_type("I32", np.ones(SHAPE, np.int32)),
        f"tensor {NAMES[0]} is I32, weights must be one",
    ),
    "a tensor of float64": (of_type("F64", np.ones(SHAPE)), f"tensor {NAMES[0]} is F64, weights must be one of F32"),
}


@pytest.mark.parametrize(("files", "message"), BAD.values(), ids=BAD)
def test_the_stage_refuses_it(tmp_path: Path, files: Callable[[], Files], message: str) -> None:
    storage = str(tmp_path / "store")
    with pytest.raises(InputError, match=f"^member/2: .*{message}") as refused:
        merge_files(storage, [model_files(INIT), model_files(ONE), files()])
    assert refused.value.hint
    assert Store.open(storage).stat(artifacts.marker("merge", KEY)) is None


@pytest.mark.parametrize(("files", "message"), BAD.values(), ids=BAD)
def test_the_tool_refuses_it(tmp_path: Path, capsys, files: Callable[[], Files], message: str) -> None:
    for name, content in (("init", model_files(INIT)), ("one", model_files(ONE)), ("two", files())):
        write_folder(tmp_path / name, content)
    places = [f"--init={tmp_path}/init", f"--policy={tmp_path}/one", f"--policy={tmp_path}/two"]

    assert run_command(["merge", *places, f"--out={tmp_path}/out"]) == 2

    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {tmp_path}/two: ")
    assert message in error
    assert hint.startswith("hint: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_shard_that_is_cut_after_it_was_published_is_corrupt(tmp_path: Path, kept: float) -> None:
    storage = str(tmp_path / "store")
    store = Store.open(storage)
    inputs = inputs_of(store, [model_files(INIT), model_files(ONE), two_shards()])
    path = Path(storage) / Artifact.of(store, inputs[2]).entry(SECOND).path
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])

    with pytest.raises(CorruptError, match=rf"{SECOND}.* chunk 0 of 1"):
        run_merge(merge_stage(storage, inputs))
    assert store.stat(artifacts.marker("merge", KEY)) is None
