"""What a namespace may ask for, on a real API server: refusals in a condition, and pods without a user of ours."""

from __future__ import annotations

import pytest

from tests.cluster.controllers import Place
from tests.cluster.stand_in_workers import StandInWorkers
from warpctl.kube.resources import PODS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


def test_classes_and_endpoints_are_refused_until_the_configuration_allows_them(
    place: Place, workers: StandInWorkers
) -> None:
    judge = {"type": "Http", "name": "judge", "url": "https://judge.ml.svc/v1/score", "revision": "1"}
    pod = {"priorityClassName": "system-node-critical", "runtimeClassName": "kata"}
    compute = place.spec()["compute"]
    rl = {"podTemplate": {**compute["rl"]["podTemplate"], **pod}}
    place.controller()
    place.create(models={**place.spec()["models"], "rewards": [judge]}, compute={**compute, "rl": rl})

    stalled = place.wait_for("Stalled")

    assert stalled["reason"] == "NotAllowed"
    for field in ("models.rewards[0].url", "podTemplate.priorityClassName", "podTemplate.runtimeClassName"):
        assert field in stalled["message"]
    assert place.jobs() == []

    assert place.controllers[0].stop() == 0
    allowed = {
        "priorityClasses": ["system-node-critical"],
        "runtimeClasses": ["*"],
        "rewardUrls": ["https://judge.ml.svc"],
    }
    place.config_body["tenancy"] = [{"storage": [f"file://{place.folder}"], **allowed}]
    place.controller()
    place.patch({"spec": {"retry": {"backoffSeconds": 1}}})  # a change, for the new controller asks in its own time
    place.wait(place.jobs, "it starts")


def test_pods_may_leave_their_user_to_the_platform_under_the_restricted_level(
    place: Place, workers: StandInWorkers
) -> None:
    place.config_body["defaults"] = {"cpu": "10m", "memory": "16Mi", "runAsUser": "FromImage"}
    place.controller()
    place.create()

    place.wait_for("Succeeded")

    for pod in place.api.list(PODS, place.namespace).items:
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(context)
