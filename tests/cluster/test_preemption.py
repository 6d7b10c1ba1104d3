"""The scheduler takes a node away for somebody more important: an infrastructure failure, and the run goes on when there is room."""

from __future__ import annotations

from collections.abc import Iterator

import kubernetes
import pytest

from tests.cluster.controllers import Place
from tests.cluster.stand_in_workers import End, StandInWorkers
from warpctl.kube.resources import PODS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@pytest.fixture
def important(api_cluster, gpu_node: None) -> Iterator[str]:
    """A priority class, where a node has GPUs for one stage only."""
    scheduling = kubernetes.client.SchedulingV1Api(api_cluster.client())
    scheduling.create_priority_class({"metadata": {"name": "important"}, "value": 1000})
    yield "important"
    scheduling.delete_priority_class("important")


def test_a_pre_empted_stage_waits_for_room_and_is_tried_again_without_a_failure_of_its_own(
    place: Place, workers: StandInWorkers, important: str
) -> None:
    workers.decide = lambda told, number: None if (told.stage_id, number) == ("rl/1/1", 1) else End()
    compute = place.spec()["compute"]
    place.controller()
    place.create(
        iterations=1,
        rlRuns=1,
        compute=compute | {"rl": {"gpus": 4, **compute["rl"]}},
        retry={"limit": 0, "backoffSeconds": 0},
    )
    place.wait(lambda: "rl/1/1" in workers.stages.values(), "a member trains")

    resources = {"limits": {"nvidia.com/gpu": "4"}}
    secure = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "main", "image": "server", "resources": resources, "securityContext": secure}
    spec = {"priorityClassName": important, "containers": [container]}
    server = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "server"}, "spec": spec}
    place.api.create(PODS, place.namespace, server)

    place.wait(lambda: place.get()["status"]["retries"] == 1, "the member is pre-empted")
    place.wait(
        lambda: "Insufficient nvidia.com/gpu" in place.condition("Ready")["message"], "it says what it waits for"
    )
    assert place.condition("Stalled")["status"] == "False"
    place.api.delete(PODS, place.namespace, "server")

    place.wait_for("Succeeded")
    assert place.jobs_by_stage()["rl/1/1"] == 2
