"""The evaluations along the RL runs behind a front, from their metrics; optional everywhere.

A line of an rl artifact's metrics.jsonl that has both fields below is a point of its trajectory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from warpctl.errors import WarpctlError
from warpctl.reports.charts import Trajectory
from warpctl.spec.stage_input import StageKind
from warpctl.storage.artifact import Artifact
from warpctl.storage.manifest import Manifest
from warpctl.storage.store import Store

METRICS_FILE = "metrics.jsonl"
KL_FIELD = "evaluation/kl"
REWARD_FIELD = "evaluation/reward"

_STAGE_ID = re.compile(r"rl/(\d+)/(\d+)")


def read_trajectories(store: Store, manifests: Iterable[Manifest]) -> tuple[Trajectory, ...]:
    """The trajectories of the rl artifacts among `manifests`; a run whose metrics are gone or unreadable has none."""
    found = []
    for manifest in manifests:
        stage_id = _STAGE_ID.fullmatch(manifest.stage_id)
        if manifest.kind != StageKind.RL or stage_id is None:
            continue
        try:
            text = Artifact(store, manifest).read(METRICS_FILE).decode()
            trajectory = parse_trajectory(text, iteration=int(stage_id[1]), member=int(stage_id[2]))
        except (WarpctlError, ValueError, TypeError):  # only a line in a picture
            continue
        if trajectory.kl:
            found.append(trajectory)
    return tuple(sorted(found, key=lambda trajectory: (trajectory.iteration, trajectory.member)))


def parse_trajectory(text: str, *, iteration: int, member: int) -> Trajectory:
    """The evaluations in a metrics.jsonl, in its order."""
    records = [json.loads(line) for line in text.splitlines() if line.strip()]
    points = [record for record in records if KL_FIELD in record and REWARD_FIELD in record]
    return Trajectory(
        iteration=iteration,
        member=member,
        kl=tuple(max(float(record[KL_FIELD]), 0.0) for record in points),
        reward=tuple(float(record[REWARD_FIELD]) for record in points),
    )
