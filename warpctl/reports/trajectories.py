"""The evaluations along the RL runs behind a front, from their metrics; optional everywhere.

A line of an rl artifact's metrics.jsonl that has both fields below is a point of its trajectory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from warpctl.errors import WarpctlError
from warpctl.spec.stage_input import StageKind
from warpctl.storage.artifact import Artifact
from warpctl.storage.manifest import Manifest
from warpctl.storage.store import Store

METRICS_FILE = "metrics.jsonl"
KL_FIELD = "evaluation/kl"
REWARD_FIELD = "evaluation/reward"

_STAGE_ID = re.compile(r"rl/(?P<iteration>\d+)/(?P<member>\d+)|control/(?P<control>\w+)/rl")


@dataclass(frozen=True)
class Trajectory:
    """Evaluations along one RL run."""

    series: str
    """`iteration 2` or `control NoAnchor`, as table.series_label says it."""
    member: int
    """0 for a control."""
    kl: tuple[float, ...]
    """Nats per completion."""
    reward: tuple[float, ...]


def read_trajectories(store: Store, manifests: Iterable[Manifest]) -> tuple[Trajectory, ...]:
    """The trajectories of the rl artifacts among `manifests`; a run whose metrics are gone or unreadable has none."""
    found = []
    for manifest in manifests:
        stage_id = _STAGE_ID.fullmatch(manifest.stage_id)
        if manifest.kind != StageKind.RL or stage_id is None:
            continue
        control, iteration = stage_id["control"], stage_id["iteration"]
        series = f"control {control}" if control else f"iteration {int(iteration)}"
        try:
            text = Artifact(store, manifest).read(METRICS_FILE).decode()
            trajectory = parse_trajectory(text, series=series, member=int(stage_id["member"] or 0))
        except (WarpctlError, ValueError, TypeError):  # only a line in a picture
            continue
        if trajectory.kl:
            found.append(trajectory)
    return tuple(sorted(found, key=lambda trajectory: (trajectory.series, trajectory.member)))


def parse_trajectory(text: str, *, series: str, member: int) -> Trajectory:
    """The evaluations in a metrics.jsonl, in its order."""
    records = [json.loads(line) for line in text.splitlines() if line.strip()]
    points = [record for record in records if KL_FIELD in record and REWARD_FIELD in record]
    return Trajectory(
        series=series,
        member=member,
        kl=tuple(max(float(record[KL_FIELD]), 0.0) for record in points),
        reward=tuple(float(record[REWARD_FIELD]) for record in points),
    )
