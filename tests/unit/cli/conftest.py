"""A command line with fake workers: in this process (`warpctl`) or in one of its own (`start`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from warpctl.cli.main import run_command
from warpctl.executors import local

TOP = Path(__file__).parents[3]
A_FOLDER, A_FILE = "/etc", "/etc/hosts"
"""Are on every machine; fake workers never read them."""
FAKE = TOP / "tests" / "unit" / "cli" / "fake_warpctl.py"


def a_spec(**changes: object) -> dict[str, object]:
    """One iteration of one RL run; `changes` replace fields of its spec."""
    return {
        "apiVersion": "warpctl.dev/v1alpha1",
        "kind": "WarpRun",
        "metadata": {"name": "demo", "namespace": "ml"},
        "spec": {
            "storage": {"uri": "store"},
            "models": {
                "sft": {"uri": A_FOLDER},
                "rewards": [{"type": "Function", "name": "r", "function": "json:dumps", "revision": "1"}],
            },
            "prompts": {"uri": A_FILE},
            "iterations": 1,
            "rlRuns": 1,
            "training": {"steps": [10]},
            "retry": {"backoffSeconds": 0, "limit": 1},
            **changes,
        },
    }


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Place:
    """A folder with a spec, a store and a state folder."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WARPCTL_", "NO_COLOR"))}
        return kept | {
            "WARPCTL_STATE_DIR": str(self.folder / "state"),
            "PYTHONPATH": str(TOP),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
            "PYTHONIOENCODING": "utf-8",
        }

    def write_spec(self, name: str = "demo.yaml", **changes: object) -> str:
        with (self.folder / name).open("w") as file:
            YAML().dump(a_spec(**changes), file)
        return name

    def start(self, *arguments: str, fake: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """`warpctl ARGUMENTS` with fake workers, in a process of its own."""
        return subprocess.Popen(
            [sys.executable, str(FAKE), *arguments],
            cwd=self.folder,
            env=self.environment | {"WARPCTL_FAKE": json.dumps(fake or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments: str, fake: dict[str, str] | None = None) -> Said:
        """`start`, to its end."""
        process = self.start(*arguments, fake=fake)
        out, err = process.communicate(timeout=120)
        return Said(process.returncode, out, err)

    def wait_for_log(self, stage_line: str) -> None:
        """Wait until some worker has said this."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if any(stage_line in path.read_text() for path in self.folder.glob("state/*/*/*/attempts/*/*/log.txt")):
                return
            time.sleep(0.05)
        raise AssertionError(f"no worker said {stage_line!r}")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty place with the spec demo.yaml."""
    here = Place(tmp_path)
    here.write_spec()
    return here


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place whose run has succeeded. Not to be changed."""
    here = Place(tmp_path_factory.mktemp("finished"))
    here.write_spec()
    said = here.call("run", "demo.yaml")
    assert said.code == 0, said.err
    return here


@pytest.fixture
def copied(finished: Place, tmp_path: Path) -> Place:
    """A finished place that may be changed; the state folder's name follows from the store's, so the spec names that."""
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    here = Place(tmp_path)
    old = next((tmp_path / "state").iterdir())
    from warpctl.cli.state_folder import StateFolder
    from warpctl.spec.parse import parse_file
    from warpctl.storage.store import Store

    root = Store.open(str(tmp_path / "store")).root
    new = StateFolder.of(parse_file(tmp_path / "demo.yaml"), storage_root=root, root=tmp_path / "state").path.parents[1]
    old.rename(new)
    spec = new / "ml" / "demo" / "spec.yaml"
    spec.write_text(spec.read_text().replace(str(finished.folder), str(tmp_path)))
    return here


@pytest.fixture
def warpctl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`warpctl(place, *arguments)` in this process, which is faster than one of its own."""
    monkeypatch.setattr(local, "WORKERS", dict.fromkeys(local.WORKERS, "tests.unit.cli.fake_worker"))
    monkeypatch.delenv("NO_COLOR", raising=False)

    def call(where: Place, *arguments: str, fake: dict[str, str] | None = None) -> Said:
        monkeypatch.chdir(where.folder)
        for name, value in where.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("WARPCTL_FAKE", json.dumps(fake or {}))
        capsys.readouterr()
        code = run_command(list(arguments))
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call
