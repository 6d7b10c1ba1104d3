"""A run that goes, with its artifacts, and whose spec this version cannot read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from warpctl import names
from warpctl.controller.reconciler import Reconciler
from warpctl.controller.world import Cluster
from warpctl.spec.controller_config import ControllerConfig


class Recorder:
    """Takes Events and writes; answers nothing."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.writes: list[Any] = []

    def send(self, run: Any, transition: Any) -> None:
        self.said.append(f"{transition.reason}: {transition.message}")

    def patch(self, *arguments: Any, **_: Any) -> Any:
        self.writes.append(arguments[-1])
        return run_object("2", abandon=True)


def run_object(version: str, *, abandon: bool = False) -> dict[str, Any]:
    metadata = {"namespace": "ml", "name": "demo", "uid": "u", "resourceVersion": version}
    metadata |= {"finalizers": [names.FINALIZER], "deletionTimestamp": "2026-11-21T12:00:00Z"}
    metadata |= {"annotations": {names.ABANDON: "true"}} if abandon else {}
    return {"apiVersion": "warpctl.dev/v1alpha1", "kind": "WarpRun", "metadata": metadata, "spec": {"new": 1}}


def test_it_stays_and_says_how_to_let_it_go_and_goes_when_that_is_done() -> None:
    recorder: Any = Recorder()
    cluster = Cluster(recorder, lambda _: None)
    config = ControllerConfig.model_validate({"images": {"slim": "slim:1", "worker": "worker:1"}})
    reconciler = Reconciler(recorder, cluster, recorder, config, recorder, lambda: datetime.now(UTC))

    cluster.runs.accept(run_object("1"))
    assert reconciler.reconcile(("ml", "demo")) == config.resync_seconds
    assert recorder.writes == []
    assert recorder.said[0].startswith("ArtifactsNotDeleted: this version cannot read its spec: ")
    assert f"annotate it with {names.ABANDON}=true" in recorder.said[0]

    cluster.runs.accept(run_object("2", abandon=True))
    assert reconciler.reconcile(("ml", "demo")) is None
    assert recorder.writes == [{"metadata": {"resourceVersion": "2", "finalizers": []}}]
