"""A worker for tests of the command line: publishes something small, or misbehaves as WARPCTL_FAKE says.

WARPCTL_FAKE is JSON: stage id -> "fail" (exit 1 once), "final" (exit 42), "crash" (exit 1 always), "slow" (until stopped),
"stubborn" (ignores SIGTERM). Stages that are not named succeed at once. Light on purpose: no harness, no structlog.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

from warpctl import artifacts
from warpctl.spec.stage_input import StageInput
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store

POINTS = (
    (1, "sft", "SFT", "1", 0.0, 0.0),
    (1, "member/1", "RL run 1", "1", 9.0, 1.0),
    (1, "liti/0.3", "LITI 0.3", "0.3", 2.0, 0.6),
    (1, "liti/1", "merged (LITI 1)", "1", 11.0, 1.5),
)


def estimate(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}


def front(stage: StageInput) -> dict[str, Any]:
    """A front.json as warpctl/reports/table.py makes it."""
    points = [
        {
            "iteration": 0 if name == "sft" else iteration,
            "control": "",
            "name": name,
            "label": label,
            "litiRate": rate,
            "kl": estimate(kl),
            "reward": estimate(reward),
            "heldOut": {},
            "length": estimate(12.0),
            "isOnFront": True,
        }
        for iteration, name, label, rate, kl, reward in POINTS
    ]
    best = {"iteration": 1, "control": "", "name": "liti/1", "label": "merged (LITI 1)"}
    return {
        "run": f"{stage.namespace}/{stage.run}",
        "confidenceLevel": 0.95,
        "maxKl": 200.0,
        "measures": ["reward"],
        "points": points,
        "best": best,
    }


def main() -> int:
    stage = StageInput.from_environment(os.environ)
    store = Store.open(stage.storage)
    behaviour = json.loads(os.environ.get("WARPCTL_FAKE", "{}")).get(stage.stage_id, "")
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    print(f"{stage.stage_id} attempt {stage.attempt_id} begins", flush=True)

    if behaviour == "final":
        print("the reward is not a number", flush=True)
        return 42
    if behaviour == "crash" or (behaviour == "fail" and stage.attempt_id.startswith("1-")):
        print("something broke", flush=True)
        return 1
    done = 0
    while behaviour in ("slow", "stubborn") and not (stopped and behaviour == "slow"):
        done += 1
        body = {"done": done, "total": 1000, "unit": "steps", "elapsedSeconds": done * 0.1, "reward": 1.5, "kl": 0.25}
        store.write(artifacts.progress(stage.kind, stage.key, stage.attempt_id), json.dumps(body).encode())
        time.sleep(0.1)
    if stopped:
        print("saved", flush=True)
        return 44

    publication = Publication(store, stage)
    publication.write_file("result.txt", stage.stage_id.encode())
    if stage.kind == "report":
        publication.write_file("front.json", json.dumps(front(stage)).encode())
        publication.write_file("report.html", b"<p>the front</p>")
    publication.commit()
    store.write(artifacts.log(stage.kind, stage.key, stage.attempt_id), b"from the store\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
