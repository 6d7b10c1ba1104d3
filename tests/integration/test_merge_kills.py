"""A merge that is killed fifty times publishes the bytes of one that is not; no kill leaves a wrong artifact."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.checkpoints import model_files, moved, random_weights
from tests.builders.merge_stage import KEY, inputs_of, merge_stage
from warpctl import artifacts
from warpctl.spec.stage_input import InputArtifact
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

KILLS = 50
SHARD_BYTES = 200_000
SHAPES = {f"model.layers.{number}.w": (200, 210) for number in range(16)} | {"model.embed.weight": (300, 210)}


class Forks:
    """Attempts that begin at once."""

    def __init__(self, storage: str, inputs: tuple[InputArtifact, ...]) -> None:
        self._storage, self._inputs = storage, inputs
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.builders.merge_forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, attempt: str) -> int:
        """Returns its pid."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        stage = merge_stage(self._storage, self._inputs, attempt=attempt)
        told = {"stage": json.loads(stage.to_json()), "maxShardBytes": SHARD_BYTES}
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
def forks(storage: str) -> Iterator[Forks]:
    init = random_weights(0, shapes=SHAPES)
    models = [init, moved(init, 1), moved(init, 2)]
    forks = Forks(storage, inputs_of(Store.open(storage), [model_files(model) for model in models]))
    yield forks
    forks.process.kill()
    forks.process.communicate()


def test_fifty_kills_at_any_instant_change_no_byte(storage: str, forks: Forks) -> None:
    store = Store.open(storage)

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
        wait_for(forks.start(f"whole-{number}"))
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
        pid = forks.start(f"a{number}")
        time.sleep(instants.uniform(0, min(seconds)))
        if is_alive(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        wait_for(pid)
        found = published()
        assert found in (None, expected)

    wait_for(forks.start("last"))
    assert published() == expected
    assert num_resumed > 0  # some of what was published had begun in an attempt that was killed
