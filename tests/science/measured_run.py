"""The tiny laboratory and the real specs/tiny-cpu.yaml, run by `warpctl run`, and the figures that lab.md's statements are about.

    python -m tests.science.measured_run [--lab-seed 0] [--run-seed 0] FOLDER

makes laboratory and run in FOLDER and prints the figures: so the table of docs/science.md is made, and so the tests read them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from ruamel.yaml import YAML

from warpctl.reports.evaluation import POINTS_FILE, read_names
from warpctl.reports.trajectories import KL_FIELD, METRICS_FILE, REWARD_FIELD
from warpctl.storage.artifact import Artifact
from warpctl.storage.file_names import MERGE_RECORD
from warpctl.storage.store import Store

SPEC = Path(__file__).parents[2] / "specs" / "tiny-cpu.yaml"
RATES = ("0.15", "0.3", "0.5", "0.75", "1")
LEFT_OUT = 0.2
"""Share of the common range of sqrt(KL), at its low end, that the gap between two curves leaves out."""


@dataclass(frozen=True)
class Point:
    """Means over the 256 evaluation completions of one policy."""

    kl: float
    reward: float
    truth: float
    length: float


Curve = list[Point]


@dataclass(frozen=True)
class Measured:
    """What a run published. Iterations and members count from 1."""

    sft: Point
    members: dict[int, list[Point]]
    """The ends of an iteration's RL runs."""
    fronts: dict[int, Curve]
    """Of each iteration: LITI from the SFT policy (rate 0) to the merged policy (rate 1)."""
    controls: dict[str, Point]
    """The ends of the runs without an anchor and with the SFT policy as anchor: seed and steps of iteration 1, member 1."""
    trajectories: dict[int, list[list[tuple[float, float]]]]
    """(KL, reward) along the RL runs."""
    merges: dict[int, dict[str, Any]]
    """merge.json's summaries."""

    def merged(self, iteration: int) -> Point:
        """The SLERP of the iteration's members."""
        return self.fronts[iteration][-1]

    def gap_over_trajectories(self, iteration: int) -> float:
        """How far the LITI front lies above the training trajectories: mean over the members."""
        front = [(point.kl, point.reward) for point in self.fronts[iteration]]
        return float(np.mean([mean_gap(front, trajectory) for trajectory in self.trajectories[iteration]]))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """From the store of a finished run."""
        store = Store.open(str(folder))
        artifacts: dict[str, Artifact] = {}
        for marker in folder.glob("stages/*/*/committed.json"):
            artifact = Artifact.load(store, marker.parent.parent.name, marker.parent.name)
            artifacts[artifact.manifest.stage_id] = artifact
        points = {stage_id: _points(store, it) for stage_id, it in artifacts.items() if it.manifest.kind == "evaluate"}
        of_iteration = {
            int(stage_id.split("/")[1]): found for stage_id, found in points.items() if "control" not in stage_id
        }
        return cls(
            sft=of_iteration[1]["sft"],
            members={i: [found["member/1"], found["member/2"]] for i, found in of_iteration.items()},
            fronts={i: [found["sft"], *(found[f"liti/{rate}"] for rate in RATES)] for i, found in of_iteration.items()},
            controls={s.split("/")[1]: found["liti/1"] for s, found in points.items() if s.startswith("control/")},
            trajectories={i: [_trajectory(artifacts[f"rl/{i}/{m}"]) for m in (1, 2)] for i in of_iteration},
            merges={i: json.loads(artifacts[f"merge/{i}"].read(MERGE_RECORD))["summary"] for i in of_iteration},
        )


def mean_gap(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]]) -> float:
    """Mean difference of reward at equal KL over the common range, linear in sqrt(KL), without its lowest fifth."""

    def curve(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
        ordered = sorted((max(kl, 0.0) ** 0.5, reward) for kl, reward in points)
        return [x for x, _ in ordered], [y for _, y in ordered]

    (upper_x, upper_y), (lower_x, lower_y) = curve(upper), curve(lower)
    low, high = max(upper_x[0], lower_x[0]), min(upper_x[-1], lower_x[-1])
    grid = np.linspace(low + LEFT_OUT * (high - low), high, 101)
    return float(np.mean(np.interp(grid, upper_x, upper_y) - np.interp(grid, lower_x, lower_y)))


def _points(store: Store, artifact: Artifact) -> dict[str, Point]:
    found = {}
    for named in read_names(artifact.read(POINTS_FILE)):
        point = json.loads(store.read(f"points/{named.point_key}.json"))
        found[named.name] = Point(
            kl=float(np.mean(point["klRb"])),
            reward=float(np.mean(point["reward"])),
            truth=float(np.mean(point["heldOut"]["ground-truth"])),
            length=float(np.mean(point["lengths"])),
        )
    return found


def _trajectory(artifact: Artifact) -> list[tuple[float, float]]:
    records = [json.loads(line) for line in artifact.read(METRICS_FILE).splitlines()]
    return [(record[KL_FIELD], record[REWARD_FIELD]) for record in records if KL_FIELD in record]


def make_laboratory(folder: Path, *, seed: int = 0) -> None:
    """`python -m warpctl.tiny`, in a process of its own so that torch stays out of this one."""
    subprocess.run([sys.executable, "-m", "warpctl.tiny", "--out", folder, "--seed", str(seed)], check=True)


def run_spec(folder: Path, laboratory: Path, *, seed: int = 0) -> Path:
    """`warpctl run` of the real spec with only its folders (and its seed) replaced; returns the store."""
    spec = YAML().load(SPEC)
    body = spec["spec"]
    body["storage"]["uri"] = str(folder / "store")
    body["models"]["sft"]["uri"] = str(laboratory / "sft")
    body["models"]["rewards"][0]["uri"] = str(laboratory / "reward")
    body["prompts"]["uri"] = str(laboratory / "prompts")
    if seed:
        body["seed"] = seed
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "tiny-cpu.yaml").open("w") as file:
        YAML().dump(spec, file)
    with (folder / "run.log").open("w") as log:
        code = subprocess.run(
            [sys.executable, "-m", "warpctl", "run", folder / "tiny-cpu.yaml"],
            env=os.environ | {"WARPCTL_STATE_DIR": str(folder / "state"), "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if code:
        raise RuntimeError(f"warpctl run ended with {code}:\n{(folder / 'run.log').read_text()}")
    return folder / "store"


def main() -> None:
    """Print the figures of one laboratory and one or more runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lab-seed", type=int, default=0)
    parser.add_argument("--run-seed", type=int, default=0)
    chosen = parser.parse_args()
    laboratory = chosen.folder / f"lab-{chosen.lab_seed}"
    make_laboratory(laboratory, seed=chosen.lab_seed)
    made = _cpu_seconds()
    found = Measured.read(
        run_spec(chosen.folder / f"run-{chosen.lab_seed}-{chosen.run_seed}", laboratory, seed=chosen.run_seed)
    )
    print(f"lab {chosen.lab_seed} run {chosen.run_seed}: {made:.0f} + {_cpu_seconds() - made:.0f} cpu-s")
    for iteration, front in found.fronts.items():
        print(f"  members {iteration}:", *found.members[iteration], sep="\n    ")
        print(f"  front {iteration}:", *front, sep="\n    ")
        print(f"  merge {iteration}:", found.merges[iteration])
        print(f"  gap {iteration}: {found.gap_over_trajectories(iteration):.3f}")
    print("  controls:", *found.controls.items(), sep="\n    ")


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
