"""What a GitOps tool meets on a real API server: statuses of every kind, no drift, nothing of its own on our children."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cluster.controllers import Place
from tests.cluster.stand_in_workers import End, StandInWorkers
from tests.gitops.recorded import STATUSES, as_recorded, load, shape
from warpctl import names
from warpctl.kube.resources import WARPRUNS
from warpctl.spec.stage_input import StageInput

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
TOP = Path(__file__).parents[2]
UPDATE = "WARPCTL_UPDATE_GOLDEN"


@dataclass
class Recorder:
    """Compares what the controller says now with what is recorded, or records it anew."""

    place: Place
    differences: list[str] = field(default_factory=list)

    def record(self, kind: str, name: str) -> None:
        seen = as_recorded(self.place.get(name), {str(self.place.folder): "/data", self.place.namespace: "ml"})
        if os.environ.get(UPDATE):
            with (STATUSES / f"{kind}.yaml").open("w") as file:
                YAML().dump(seen, file)
        elif shape(seen) != shape(load(kind)):
            self.differences.append(f"{kind}: {shape(seen)} is not what is recorded: {shape(load(kind))}")


def test_recorded_statuses_are_what_the_controller_says(place: Place, workers: StandInWorkers) -> None:
    """tests/gitops/statuses is what the health checks are tested on."""
    recorder = Recorder(place)
    ends: dict[str, Callable[[StageInput, int], End | None]] = {
        "stage-stalled": lambda told, number: End(42, message="no pad token") if told.stage_id == "rl/1/1" else End(),
        "partly-stalled": lambda told, number: {"rl/1/1": End(42, message="no pad token"), "rl/1/2": None}.get(
            told.stage_id, End()
        ),
        "retrying": lambda told, number: End(43, message="no answer") if told.stage_id == "rl/1/1" else End(),
        "running": lambda told, number: None,
    }
    kinds = (*ends, "waiting", "not-allowed", "suspended", "cancelled", "succeeded", "deleting", "edited", "new")
    steps = {kind: 10 + i for i, kind in enumerate(kinds)}
    by_steps = {steps[kind]: end for kind, end in ends.items()}
    workers.decide = lambda told, number: by_steps.get(_steps(told), lambda *_: End())(told, number)

    def create(kind: str, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        # Steps of its own: no run shares a stage of RL with another one.
        place.create(kind, annotations=annotations, training={"steps": [steps[kind]], "batchSize": 8}, **spec)

    first = place.controller()
    for kind in ("stage-stalled", "partly-stalled", "running", "succeeded", "edited"):
        create(kind)
    create("retrying", retry={"backoffSeconds": 3600})
    create("waiting", compute={"import": {"cpu": "100000"}}, models=_other_import(place))
    create("not-allowed", storage={"uri": "gs://somebody-else/runs"})
    create("suspended", suspend=True)
    create("cancelled", {names.CANCEL: "by alice"})
    create("deleting", deletionPolicy="Delete")

    place.wait(lambda: _stages(place, "running", "Running") == {"rl/1/1", "rl/1/2"}, "both members train")
    recorder.record("running", "running")
    place.wait_for("Stalled", "stage-stalled")
    place.wait(lambda: place.condition("Reconciling", "stage-stalled")["status"] == "False", "nothing else can go on")
    recorder.record("stage-stalled", "stage-stalled")
    place.wait_for("Stalled", "partly-stalled")
    place.wait(lambda: _stages(place, "partly-stalled", "Running") == {"rl/1/2"}, "the other member trains")
    recorder.record("partly-stalled", "partly-stalled")
    place.wait(lambda: _stages(place, "retrying", "Retrying") == {"rl/1/1"}, "a member waits for its next attempt")
    place.wait(lambda: not _stages(place, "retrying", "Running"), "the other one is done")
    recorder.record("retrying", "retrying")
    place.wait(lambda: "Insufficient cpu" in place.condition("Ready", "waiting").get("message", ""), "it says why")
    recorder.record("waiting", "waiting")
    for kind, condition in (("not-allowed", "Stalled"), ("suspended", "Suspended"), ("cancelled", "Suspended")):
        place.wait_for(condition, kind)
        recorder.record(kind, kind)
    for kind in ("succeeded", "deleting", "edited"):
        place.wait_for("Succeeded", kind)
    recorder.record("succeeded", "succeeded")

    assert first.stop() == 0
    place.patch({"spec": {"iterations": 3}}, "edited")  # nobody is there to see it
    recorder.record("edited", "edited")
    place.api.delete(WARPRUNS, place.namespace, "deleting")
    recorder.record("deleting", "deleting")
    create("new")
    recorder.record("new", "new")

    place.patch({"metadata": {"finalizers": []}}, "deleting")
    assert recorder.differences == []


def _steps(told: StageInput) -> int:
    """Of the run that a stage belongs to, 0 where the stage does not say."""
    return int(getattr(told.task, "steps", 0) or 0)


def _other_import(place: Place) -> dict[str, Any]:
    """A source of its own, so that no other run's import is the one that waits."""
    models: dict[str, Any] = place.spec()["models"]
    return models | {"sft": {"uri": f"file://{place.folder}/other"}}


def _stages(place: Place, name: str, state: str) -> set[str]:
    stages = place.get(name).get("status", {}).get("stages", ())
    return {each["id"] for each in stages if each["state"] == state}
