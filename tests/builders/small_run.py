"""A whole WARP run that takes seconds: a laboratory of width 32 and a spec of few steps, run by the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from warpctl.storage.folder_lock import is_locked

MAKE = """
import sys
from pathlib import Path
from warpctl.tiny.laboratory import make_laboratory
from warpctl.tiny.recipe import Recipe
recipe = Recipe(width=32, num_heads=2, sft_steps=60, num_prompts=96, num_pairs=64, reward_width=32, reward_heads=2,
                reward_steps=10)
make_laboratory(Path(sys.argv[1]), recipe, lambda line: None)
"""


def make_small_laboratory(folder: Path) -> Path:
    """SFT policy, reward model and prompts, made in a process of their own so that torch stays out of this one."""
    subprocess.run([sys.executable, "-c", MAKE, str(folder)], check=True, timeout=120)
    return folder


def small_spec(laboratory: Path, store: str, **changes: Any) -> dict[str, Any]:
    """A WarpRun of one iteration and two RL runs of six steps; `changes` replace fields of its spec."""
    return {
        "apiVersion": "warpctl.dev/v1alpha1",
        "kind": "WarpRun",
        "metadata": {"name": "small"},
        "spec": {
            "storage": {"uri": store},
            "models": {
                "sft": {"uri": str(laboratory / "sft")},
                "rewards": [{"type": "Checkpoint", "name": "learned", "uri": str(laboratory / "reward")}],
                "heldOutRewards": [
                    {
                        "type": "Function",
                        "name": "ground-truth",
                        "function": "warpctl.tiny.ground_truth:score",
                        "revision": "1",
                    }
                ],
            },
            "prompts": {
                "uri": str(laboratory / "prompts"),
                "maxPromptTokens": 32,
                "evaluationSplit": {"type": "HeldOut", "count": 16},
            },
            "iterations": 1,
            "rlRuns": 2,
            "training": {
                "steps": [6],
                "batchSize": 4,
                "emaRate": "0.05",
                "optimizer": {"learningRate": "1e-3", "warmupSteps": 2},
                "sampling": {"maxNewTokens": 16},
                "resumeState": {"everySteps": 2},
                "evaluation": {"everySteps": 3, "numPrompts": 4},
            },
            "evaluation": {"litiRates": ["0.5", "1"]},
            "retry": {"backoffSeconds": 0},
            **changes,
        },
    }


@dataclass
class SmallRun:
    """A spec on disk with a store and a state folder of its own, run by `warpctl run`."""

    folder: Path
    laboratory: Path
    changes: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    store_uri: str = ""
    """Where the artifacts go; "" is a folder of this run."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.spec_file.open("w") as file:
            YAML().dump(small_spec(self.laboratory, self.store_uri or str(self.store), **self.changes), file)

    @property
    def spec_file(self) -> Path:
        return self.folder / "small.yaml"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`warpctl run` in the background; its output is in run.log."""
        with (self.folder / "run.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "warpctl", "run", str(self.spec_file), *arguments],
                env=os.environ | {"WARPCTL_STATE_DIR": str(self.state), "NO_COLOR": "1"} | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def run(self, *arguments: str, timeout: float = 600) -> int:
        """`warpctl run` to its end; returns its exit code."""
        return self.start(*arguments).wait(timeout)

    def log(self) -> str:
        return (self.folder / "run.log").read_text()

    def digests(self) -> dict[str, str]:
        """Content digest of every committed stage but reports, by kind and key: sizes and chunk digests of all files."""
        markers = (json.loads(path.read_text()) for path in self.store.glob("stages/*/*/committed.json"))
        return {f"{m['kind']}/{m['key']}": m["contentDigest"] for m in markers if m["kind"] != "report"}

    def process_groups(self) -> list[int]:
        """Process groups of the attempts that live now: the lock tells, since a pid may be another program's by now."""
        pids = self.state.glob("**/attempts/*/*/pid")
        return [int(path.read_text()) for path in pids if is_locked(path.with_name("alive.lock"))]
