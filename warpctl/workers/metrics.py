"""What an RL run writes down: one JSON line a step, and its timings apart, because those differ from run to run.

metrics.jsonl is deterministic: it is published with the policy and is a part of its identity. Segments under the attempt
let others watch while it runs; they and the timings are views.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from warpctl import artifacts
from warpctl.errors import WarpctlError
from warpctl.rl.health import health_warnings
from warpctl.spec.stage_input import StageInput
from warpctl.storage.store import Store
from warpctl.workers.tracking import Tracker

METRICS_FILE = "metrics.jsonl"
NUM_RUNNING = 10
"""Steps that a running mean looks back on."""

Record = Mapping[str, float | int | list[str]]


class MetricsLog:
    """Lines of all steps so far, and which of them have been shown."""

    def __init__(self, store: Store, stage: StageInput, lines: list[str], *, tracker: Tracker) -> None:
        self._store = store
        self._stage = stage
        self.tracker = tracker
        self.lines = list(lines)
        self.records: list[dict[str, float]] = [json.loads(line) for line in lines]
        self._num_shown = len(lines)
        self._num_told = 0  # the tracker knows best which of the earlier ones it has
        self._timings: list[str] = []
        self._num_segments = 0
        self._warned: set[str] = set()

    def add(self, record: Record) -> None:
        """One more line."""
        self.lines.append(json.dumps(record, separators=(",", ":"), allow_nan=False))
        self.records.append(json.loads(self.lines[-1]))

    def add_timing(self, record: Record) -> None:
        """One more line of timings."""
        self._timings.append(json.dumps(record, separators=(",", ":")))

    def add_step(self, record: Mapping[str, float]) -> list[str]:
        """One more optimizer step, with its health warnings; returns those that are met for the first time."""
        earlier = self.last_steps(NUM_RUNNING - 1)
        first = next((old for old in self.records if "entropy" in old), record)
        warnings = health_warnings(first, [*earlier, record])
        self.add({**record, "warnings": warnings} if warnings else record)
        new = [warning for warning in warnings if warning not in self._warned]
        self._warned.update(new)
        return new

    @property
    def warnings(self) -> list[str]:
        """Health warnings of the latest step."""
        found: list[str] = json.loads(self.lines[-1]).get("warnings", []) if self.lines else []
        return found

    def last_steps(self, count: int) -> list[dict[str, float]]:
        """The records of the last `count` optimizer steps."""
        return [record for record in self.records[-count:] if "entropy" in record] if count else []

    def running_mean(self, name: str, latest: float) -> float:
        """Mean of `name` over the latest value and the steps before it, NUM_RUNNING at most."""
        values = [*(record[name] for record in self.last_steps(NUM_RUNNING - 1)), latest]
        return sum(values) / len(values)

    def show(self) -> None:
        """Tell the tracker what is new, then write it as one segment each; a view is not worth a failure."""
        self.tracker.tell(self.records[self._num_told :])
        self._num_told = len(self.records)
        stage, number = self._stage, self._num_segments
        new = self.lines[self._num_shown :]
        try:
            if new:
                self._store.write(artifacts.metrics(stage.kind, stage.key, stage.attempt_id, number), _text(new))
            if self._timings:
                path = artifacts.timings(stage.kind, stage.key, stage.attempt_id, number)
                self._store.write(path, _text(self._timings))
        except (WarpctlError, OSError):
            return
        self._num_segments += 1
        self._num_shown, self._timings = len(self.lines), []

    def to_bytes(self) -> bytes:
        """metrics.jsonl as it is published."""
        return _text(self.lines)


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
