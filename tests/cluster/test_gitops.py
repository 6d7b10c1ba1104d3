"""What a GitOps tool meets on a real API server: statuses of every kind, no drift, nothing of its own on our children."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cluster.controllers import Place
from tests.cluster.harness.control_plane import ApiCluster
from tests.cluster.harness.given import GivenCluster
from tests.cluster.stand_in_workers import End, StandInWorkers
from tests.gitops.health_engines import GITOPS, argo_act, argo_actions, argo_health
from tests.gitops.recorded import STATUSES, as_recorded, load, shape
from warpctl import names
from warpctl.kube.resources import EVENTS, JOBS, PODS, SERVICES, WARPRUNS
from warpctl.spec.stage_input import StageInput

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.yaml"))
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


def test_recorded_statuses_are_what_the_controller_says(
    place: Place, workers: StandInWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tests/gitops/statuses is what the health checks are tested on."""
    recorder = Recorder(place)
    ends: dict[str, Callable[[StageInput, int], End | None]] = {
        "stage-stalled": lambda told, number: End(42, message="no pad token") if told.stage_id == "rl/1/1" else End(),
        "partly-stalled": lambda told, number: {"rl/1/1": End(42, message="no pad token"), "rl/1/2": None}.get(
            told.stage_id, End()
        ),
        "retrying": lambda told, number: End(43, message="no answer") if told.stage_id == "rl/1/1" else End(),
        "running": lambda told, number: None,
        "invalid-annotation": lambda told, number: None,
    }
    kinds = (*ends, "waiting", "not-allowed", "suspended", "cancelled", "succeeded", "deleting", "edited", "new")
    kinds += ("invalid-annotation", "store-unavailable")
    steps = {kind: 10 + i for i, kind in enumerate(kinds)}
    by_steps = {steps[kind]: end for kind, end in ends.items()}
    workers.decide = lambda told, number: by_steps.get(_steps(told), lambda *_: End())(told, number)

    def create(kind: str, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        # Steps of its own: no run shares a stage of RL with another one.
        place.create(kind, annotations=annotations, training={"steps": [steps[kind]], "batchSize": 8}, **spec)

    # Nobody answers there, so gs:// does not.
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    place.config_body["tenancy"] = [{"storage": [f"file://{place.folder}", "gs://ours"]}]
    first = place.controller()
    for kind in ("stage-stalled", "partly-stalled", "running", "succeeded", "edited"):
        create(kind)
    create("retrying", retry={"backoffSeconds": 3600})
    create("waiting", compute={"import": {"cpu": "100000"}}, models=_other_import(place))
    create("not-allowed", storage={"uri": "gs://somebody-else/runs"})
    create("suspended", suspend=True)
    create("cancelled", {names.CANCEL: "by alice"})
    create("invalid-annotation", {names.RETRY: "true"})
    create("store-unavailable", storage={"uri": "gs://ours/runs"})
    create("deleting", deletionPolicy="Delete")

    place.wait(lambda: _stages(place, "running", "Running") == {"rl/1/1", "rl/1/2"}, "both members train")
    recorder.record("running", "running")
    place.wait(lambda: len(_stages(place, "invalid-annotation", "Running")) == 2, "both members train")
    recorder.record("invalid-annotation", "invalid-annotation")
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

    place.wait(lambda: place.condition("Ready", "store-unavailable").get("reason") == "StoreUnavailable", "it says so")
    recorder.record("store-unavailable", "store-unavailable")

    assert first.stop() == 0
    place.patch({"spec": {"iterations": 3}}, "edited")  # nobody is there to see it
    recorder.record("edited", "edited")
    place.api.delete(WARPRUNS, place.namespace, "deleting")
    recorder.record("deleting", "deleting")
    create("new")
    recorder.record("new", "new")

    place.patch({"metadata": {"finalizers": []}}, "deleting")
    assert recorder.differences == []


def test_an_annotation_that_means_nothing_is_told_of_once_and_changes_nothing(
    place: Place, workers: StandInWorkers
) -> None:
    workers.decide = lambda told, number: None if told.kind == "rl" else End()
    controller = place.controller()
    place.create(annotations={names.RETRY: "true", names.CANCEL: ""})

    def told() -> list[str]:
        events = place.api.list(EVENTS, place.namespace).items
        return sorted(each["message"] for each in events if each["reason"] == "AnnotationIgnored")

    place.wait(lambda: len(told()) == 2, "a Warning for each of them")
    place.wait(lambda: _stages(place, "demo", "Running") == {"rl/1/1", "rl/1/2"}, "it runs all the same")
    assert [names.CANCEL in told()[0], names.RETRY in told()[1]] == [True, True]
    assert (
        'must be an instant of the past such as 2026-11-21T12:00:00Z, got "true"' in place.condition("Ready")["message"]
    )

    assert controller.stop() == 0
    successor = place.controller()
    place.wait(lambda: "leading" in successor.said(), "another one leads")
    place.patch({"metadata": {"annotations": {names.REFRESH: ""}}})
    place.wait(lambda: len(told()) == 3, "only the new one is told of")

    place.patch({"metadata": {"annotations": dict.fromkeys((names.RETRY, names.CANCEL, names.REFRESH))}})
    place.wait(lambda: "ignored" not in place.condition("Ready")["message"], "it is forgotten with them")
    assert place.get()["status"]["ignored"] == []
    assert len(told()) == 3


@pytest.mark.parametrize("manager", ["argocd-controller", "kustomize-controller"])
def test_what_was_applied_from_git_is_never_reported_as_drift(
    api_cluster: ApiCluster | GivenCluster, place: Place, workers: StandInWorkers, manager: str
) -> None:
    """Every example: applied twice, and compared again after a controller has worked on it."""
    git = [YAML(typ="safe").load(path.read_text()) for path in SPECS]
    for each in git:
        each["metadata"]["namespace"] = place.namespace

    def apply(body: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = place.api.apply(WARPRUNS, place.namespace, body, manager=manager, force=True)
        return found

    for each in git:
        first, second = apply(each), apply(each)
        assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        assert second["spec"] == each["spec"]
    place.controller()
    run = place.create("whole", deletionPolicy="Delete")
    place.wait_for("Succeeded", "whole")
    for each in git:
        name = each["metadata"]["name"]
        place.wait(lambda name=name: place.condition("Ready", name), "the controller has looked at it")
        seen = place.get(name)
        assert (seen["metadata"]["generation"], seen["spec"]) == (1, each["spec"])
        text = json.dumps(each)
        flags = ("--server-side", f"--field-manager={manager}", f"--namespace={place.namespace}", "-f", "-")
        api_cluster.kubectl("diff", *flags, stdin=text)  # exits with 1 where there is a difference

    after = place.get("whole")
    assert (after["metadata"]["generation"], after["spec"]) == (1, run["spec"])
    written = [(each["manager"], each["fieldsV1"]) for each in after["metadata"]["managedFields"]]
    ours = [fields for name, fields in written if name == "warpctl-controller"]
    assert {part for fields in ours for part in fields} == {"f:status", "f:metadata"}
    assert {part for fields in ours for part in fields.get("f:metadata", ())} == {"f:finalizers"}
    assert len([name for name, fields in written if "f:spec" in fields]) == 1  # who created it
    place.patch({"metadata": {"finalizers": []}}, "whole")


@pytest.mark.timeout(900)  # the first one builds the engine
def test_argo_cds_actions_stop_a_run_let_it_go_on_and_try_it_again(place: Place, workers: StandInWorkers) -> None:
    """As Argo CD does it: the script changes the object, what has changed is sent as a patch."""

    def act(action: str) -> None:
        seen = place.get()
        assert argo_actions(seen)[action]
        before, after = (each["metadata"].get("annotations") or {} for each in (seen, argo_act(action, seen)))
        place.patch({"metadata": {"annotations": dict.fromkeys(before) | after}})

    workers.decide = lambda told, number: None if told.kind == "rl" and number == 1 else End()
    place.controller()
    place.create()
    place.wait(lambda: _stages(place, "demo", "Running") == {"rl/1/1", "rl/1/2"}, "both members train")

    act("suspend")
    place.wait_for("Suspended")
    assert argo_health(place.get())[0] == "Suspended"
    workers.decide = lambda told, number: End(42, message="no pad token") if told.stage_id == "rl/1/1" else End()
    act("resume")
    place.wait_for("Stalled")
    place.wait(lambda: argo_health(place.get())[0] == "Degraded", "Argo CD says so")
    workers.decide = lambda told, number: End()
    time.sleep(1.1)  # failures before this second are pardoned, not those in it
    act("retry")
    place.wait_for("Succeeded")
    assert argo_health(place.get())[0] == "Healthy"


def test_the_patch_of_argocd_cm_keeps_what_is_there(api_cluster: ApiCluster | GivenCluster, namespace: str) -> None:
    api_cluster.kubectl(
        "create", "configmap", "argocd-cm", f"--namespace={namespace}", "--from-literal=url=https://argo"
    )
    patch = (GITOPS / "argocd-cm.yaml").read_text().replace("namespace: argocd", f"namespace: {namespace}")

    flags = (f"--namespace={namespace}", "--output=json", f"--patch={patch}")
    found = json.loads(api_cluster.kubectl("patch", "configmap", "argocd-cm", *flags))

    kinds = {f"resource.customizations.{kind}.warpctl.dev_WarpRun" for kind in ("health", "actions")}
    assert set(found["data"]) == {"url", *kinds}


TRACKING = {
    "labels": {
        "argocd.argoproj.io/instance": "runs",
        "app.kubernetes.io/instance": "runs",
        "kustomize.toolkit.fluxcd.io/name": "runs",
        "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
        "team": "a",
    },
    "annotations": {
        "argocd.argoproj.io/instance": "runs",
        "argocd.argoproj.io/tracking-id": "runs:warpctl.dev/WarpRun:ml/demo",
        "argocd.argoproj.io/sync-wave": "3",
        "kustomize.toolkit.fluxcd.io/prune": "disabled",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
    },
}


def test_nothing_by_which_a_gitops_tool_knows_its_own_is_on_our_children(place: Place, workers: StandInWorkers) -> None:
    """Argo CD would take a Job that bears its mark for its own, and prune it: it is not in Git."""
    workers.decide = lambda told, number: None if told.kind == "rl" else End()
    rl = {**place.spec()["compute"]["rl"], "nodes": 2}
    place.controller()
    place.api.create(
        WARPRUNS,
        place.namespace,
        {
            "apiVersion": WARPRUNS.api_version,
            "kind": WARPRUNS.kind,
            "metadata": {"name": "demo", **TRACKING},
            "spec": place.spec(compute={**place.spec()["compute"], "rl": rl}),
        },
    )
    place.wait(lambda: _stages(place, "demo", "Running") == {"rl/1/1", "rl/1/2"}, "both members train")

    found = {kind.kind: place.api.list(kind, place.namespace).items for kind in (JOBS, PODS, SERVICES)}
    assert all(len(items) >= 2 for items in found.values())
    for child in (each for items in found.values() for each in items):
        metadata = child["metadata"]
        assert not set(TRACKING["annotations"]) & set(metadata.get("annotations") or ())
        marks = {name: metadata["labels"].get(name) for name in TRACKING["labels"]}
        assert "runs" not in marks.values()
        assert marks["team"] is None
        assert [owner["controller"] for owner in metadata["ownerReferences"]] == [True]  # no root of its own to Argo CD


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
