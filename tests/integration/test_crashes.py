"""Kill -9 of engine and workers, at every commit boundary and at random moments: the same command finishes with the same bytes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.builders.small_run import SmallRun, make_small_laboratory

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

FAULTS = Path(__file__).parents[1] / "faults"

# Every place where a worker or the engine makes something final, one regular expression each.
BOUNDARIES = [
    *[
        ("worker", "create_once", rf"stages/{kind}/.*/committed\.json")
        for kind in ("import", "rl", "merge", "evaluate", "report")
    ],
    *[("worker", "open_write", rf"stages/{kind}/.*/files/") for kind in ("rl", "merge")],
    *[("worker", "write", rf"stages/{kind}/.*/receipts/") for kind in ("import", "rl", "merge")],
    ("worker", "open_write", r"stages/rl/.*/resume/.*/policy\.safetensors"),
    ("worker", "write", r"stages/rl/.*/resume/.*/committed\.json"),
    ("worker", "write", r"stages/rl/.*/metrics/"),
    ("worker", "delete", r"stages/rl/.*/resume/.*/committed\.json"),
    ("worker", "create_once", r"points/"),
    ("engine", "write", r"runs/.*/report/"),
    ("engine", "write", r"wanted\.json"),
]


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_laboratory(tmp_path_factory.mktemp("laboratory") / "tiny")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, laboratory: Path) -> dict[str, str]:
    """What an undisturbed run publishes."""
    run = SmallRun(tmp_path_factory.mktemp("uninterrupted"), laboratory)
    assert run.run() == 0, run.log()
    return run.digests()


def test_kill_9_at_every_commit_boundary(tmp_path: Path, laboratory: Path, uninterrupted: dict[str, str]) -> None:
    """Before and after each of them, one kill after the other in one run."""
    kills = [
        {
            "who": who,
            "operation": operation,
            "path": path,
            "when": when,
            "done": str(tmp_path / f"kill-{number}-{when}"),
        }
        for number, (who, operation, path) in enumerate(BOUNDARIES)
        for when in ("before", "after")
        # A worker killed behind its commit is not started again, so its states may have been left to gc: one delete is sure.
        if (operation, when) != ("delete", "after")
    ]
    environment = {"WARPCTL_TEST_KILLS": json.dumps(kills), "PYTHONPATH": str(FAULTS)}
    run = SmallRun(tmp_path / "run", laboratory, environment=environment)

    codes = [run.run()]
    while codes[-1] == -signal.SIGKILL:
        codes.append(run.run())

    missed = [kill for kill in kills if not Path(kill["done"]).exists()]
    assert codes[-1] == 0, run.log()
    assert codes.count(-signal.SIGKILL) == 4  # the engine, before and after wanted.json and a view
    assert missed == []
    assert run.digests() == uninterrupted


def test_kill_9_at_20_random_moments(tmp_path: Path, laboratory: Path, uninterrupted: dict[str, str]) -> None:
    """Engine, workers or all of them, at instants drawn from a seed; then the same command, undisturbed."""
    dice = random.Random(20)
    kills, number = 0, 0
    while kills < 20:
        number += 1
        run = SmallRun(tmp_path / f"run-{number}", laboratory)
        while kills < 20 and kill_at_a_random_moment(run, dice):
            kills += 1
        assert run.run() == 0, run.log()
        assert run.digests() == uninterrupted


def kill_at_a_random_moment(run: SmallRun, dice: random.Random) -> bool:
    """Whether there was anything left to kill."""
    engine = run.start()
    try:
        engine.wait(dice.uniform(0.5, 6))
    except subprocess.TimeoutExpired:
        victims = dice.choice(["engine", "workers", "all"])
        if victims != "engine":
            for group in run.process_groups():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
        if victims == "workers":
            time.sleep(dice.uniform(0, 1))
        engine.kill()
        engine.wait()
        return True
    assert engine.returncode == 0, run.log()
    return False
