"""A merge that is killed fifty times makes the bytes of one that is not; no kill leaves a wrong artifact, or half a model."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.checkpoints import model_files, moved, random_weights
from tests.builders.merge_stage import KEY, inputs_of, merge_stage
from tests.builders.model_folder import write_folder
from warpctl import artifacts
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

KILLS = 50
SHARD_BYTES = 200_000
SHAPES = {f"model.layers.{number}.w": (200, 210) for number in range(16)} | {"model.embed.weight": (300, 210)}

INIT = random_weights(0, shapes=SHAPES)
MODELS = {"init": model_files(INIT), "one": model_files(moved(INIT, 1)), "two": model_files(moved(INIT, 2))}


class Forks:
    """Merges that begin at once."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.builders.merge_forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, **told: object) -> int:
        """Returns its pid."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def wait_for(pid: int) -> None:
    until = time.monotonic() + 60
    while is_alive(pid):
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def forks() -> Iterator[Forks]:
    forks = Forks()
    yield forks
    forks.process.kill()
    forks.process.communicate()


def test_fifty_kills_at_any_instant_change_no_byte(storage: str, forks: Forks) -> None:
    store = Store.open(storage)
    inputs = inputs_of(store, list(MODELS.values()))

    def start(attempt: str) -> int:
        stage = merge_stage(storage, inputs, attempt=attempt)
        return forks.start(stage=json.loads(stage.to_json()), maxShardBytes=SHARD_BYTES)

    def published() -> dict[str, bytes] | None:
        """Bytes of the committed artifact, each verified against its digest; the stage is forgotten."""
        nonlocal num_resumed
        if store.stat(artifacts.marker("merge", KEY)) is None:
            return None
        artifact = Artifact.load(store, "merge", KEY)
        num_resumed += len({file.path.split("/attempts/")[1].split("/")[0] for file in artifact.manifest.files}) > 1
        found = {name: artifact.read(name) for name in artifact.names()}
        store.delete_tree(artifacts.stage("merge", KEY))
        return found

    num_resumed = 0
    seconds, expected = [], None
    for number in range(3):
        begin = time.monotonic()
        wait_for(start(f"whole-{number}"))
        seconds.append(time.monotonic() - begin)
        found = published()
        assert found is not None
        assert expected in (None, found)
        expected = found

    instants = random.Random(7)
    killed = number = 0
    while killed < KILLS:
        number += 1
        assert number < 10 * KILLS
        pid = start(f"a{number}")
        time.sleep(instants.uniform(0, min(seconds)))
        if is_alive(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        wait_for(pid)
        found = published()
        assert found in (None, expected)

    wait_for(start("last"))
    assert published() == expected
    assert num_resumed > 0  # some of what was published had begun in an attempt that was killed


def test_fifty_kills_of_warpctl_merge_leave_no_model_and_no_lock(tmp_path: Path, forks: Forks) -> None:
    """Each begins in the folder that the one before it was killed in."""
    for name, files in MODELS.items():
        write_folder(tmp_path / name, files)
    out = tmp_path / "out"
    places = ["--init", f"{tmp_path}/init", "--policy", f"{tmp_path}/one", "--policy", f"{tmp_path}/two"]
    arguments = ["merge", *places, "--out", str(out), "--max-shard-size", "200kB"]

    def made() -> dict[str, bytes] | None:
        """Files of a folder that is a model, which goes; merge.json names its writer and is left out."""
        if not (out / "config.json").exists():
            return None
        found = {path.name: path.read_bytes() for path in out.iterdir() if path.name != "merge.json"}
        assert json.loads((out / "merge.json").read_text())["isComplete"] is True
        shutil.rmtree(out)
        return found

    seconds, expected = [], None
    for _ in range(3):
        begin = time.monotonic()
        wait_for(forks.start(arguments=arguments))
        seconds.append(time.monotonic() - begin)
        found = made()
        assert found is not None
        assert expected in (None, found)
        expected = found

    instants = random.Random(11)
    killed = unfinished = 0
    for _ in range(10 * KILLS):
        pid = forks.start(arguments=arguments)
        time.sleep(instants.uniform(0, min(seconds)))
        if is_alive(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        wait_for(pid)
        unfinished += (out / "merge.json").exists() and not (out / "config.json").exists()
        assert made() in (None, expected)
        if killed == KILLS:
            break

    assert killed == KILLS
    assert unfinished > KILLS // 4
    wait_for(forks.start(arguments=arguments))
    assert made() == expected
