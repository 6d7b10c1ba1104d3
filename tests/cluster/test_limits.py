"""What bounds a run, and what was lost to it: budget, quota, refusals, placement, artifacts that have gone."""

from __future__ import annotations

import time

import kubernetes
import pytest

from tests.cluster.commands import call, spec_file
from tests.cluster.controllers import Place
from tests.cluster.stand_in_workers import End, StandInWorkers
from warpctl import artifacts, names
from warpctl.kube.resources import PODS
from warpctl.spec.stage_input import StageInput
from warpctl.storage.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


def gpu_hours(place: Place) -> float:
    return float(place.get().get("status", {}).get("gpuHours", 0))


def test_a_run_that_has_used_its_budget_is_suspended_and_stays_so(
    place: Place, workers: StandInWorkers, gpu_node: None
) -> None:
    """Its Jobs are deleted, and with them goes what they are charged by: the hours must not go too."""
    workers.decide = lambda told, number: None if told.stage_id.startswith("rl/") else End()
    place.controller()
    rl = {"gpus": 4, **place.spec()["compute"]["rl"]}
    place.create(rlRuns=1, compute=place.spec()["compute"] | {"rl": rl}, budget={"gpuHours": "0.02"})  # 18 s of 4 GPUs

    said = place.wait_for("Suspended", seconds=120)

    assert "0.0 GPU-hours are used, spec.budget.gpuHours is 0.02" in said["message"]
    place.wait(lambda: "rl/1/1" not in place.jobs_by_stage(), "the Job has gone")
    time.sleep(3)
    assert place.condition("Suspended")["status"] == "True"
    assert gpu_hours(place) >= 0.02
    assert "rl/1/1" not in place.jobs_by_stage()

    workers.decide = lambda told, number: End()
    place.patch({"spec": {"budget": {"gpuHours": "5"}}})
    place.wait_for("Succeeded")
    assert gpu_hours(place) >= 0.02


def test_a_job_that_a_quota_refuses_says_so_and_holds_up_no_other_stage(
    place: Place, workers: StandInWorkers, api_cluster
) -> None:
    core = kubernetes.client.CoreV1Api(api_cluster.client())
    quota = {"metadata": {"name": "jobs"}, "spec": {"hard": {"count/jobs.batch": "1"}}}
    core.create_namespaced_resource_quota(place.namespace, quota)
    place.wait(lambda: core.read_namespaced_resource_quota("jobs", place.namespace).status.hard, "the quota holds")
    place.controller()
    place.create(iterations=1, rlRuns=1)

    place.wait(lambda: place.get().get("status", {}).get("stagesSucceeded") == 1, "the other import is done", 60)
    place.wait(lambda: place.condition("Ready").get("reason") == "Waiting", "the run waits", 60)
    message = place.condition("Ready")["message"]
    assert message.startswith("import/")
    assert "exceeded quota: jobs, requested: count/jobs.batch=1, used: count/jobs.batch=1" in message
    assert len(place.jobs()) == 1  # the other import was made

    quota["spec"]["hard"]["count/jobs.batch"] = "50"
    core.patch_namespaced_resource_quota("jobs", place.namespace, quota)
    place.wait_for("Succeeded")


def test_a_run_that_is_not_allowed_any_more_can_still_be_suspended(place: Place, workers: StandInWorkers) -> None:
    workers.decide = lambda told, number: None if told.stage_id == "rl/1/1" else End()
    place.controller()
    place.create()
    place.wait(lambda: "rl/1/1" in workers.stages.values(), "a member trains")
    compute = place.spec()["compute"]
    rl = {"podTemplate": compute["rl"]["podTemplate"] | {"serviceAccountName": "admin"}}

    place.patch({"spec": {"compute": {"rl": rl}}})
    place.wait(lambda: place.condition("Ready").get("reason") == "NotAllowed", "it is refused")
    assert "rl/1/1" in place.jobs_by_stage()
    place.patch({"spec": {"suspend": True}})

    place.wait(lambda: "rl/1/1" not in place.jobs_by_stage(), "its Job has gone")
    assert place.condition("Ready")["reason"] == "NotAllowed"


def test_a_change_of_placement_leaves_the_running_job_alone_and_reaches_the_next(
    place: Place, workers: StandInWorkers
) -> None:
    workers.decide = lambda told, number: None if (told.stage_id, number) == ("rl/1/1", 1) else End()
    place.controller()
    place.create()
    place.wait(lambda: "rl/1/1" in workers.stages.values(), "a member trains")

    def attempts() -> dict[str, tuple[str, str]]:
        """Attempt -> uid and memory."""
        found = {}
        for job in place.jobs():
            if job["metadata"]["annotations"][names.STAGE_ID] == "rl/1/1":
                container = job["spec"]["template"]["spec"]["containers"][0]
                memory = container["resources"]["requests"]["memory"]
                found[job["metadata"]["labels"][names.ATTEMPT]] = (job["metadata"]["uid"], memory)
        return found

    first = attempts()
    place.patch({"spec": {"compute": {"rl": {"memory": "32Mi"}}}})
    place.wait(lambda: place.get()["status"]["observedGeneration"] == 2, "the edit is seen")
    assert attempts() == first
    pods = place.api.list(PODS, place.namespace, labels=f"{names.ITERATION}=1,{names.MEMBER}=1").items
    workers.finish(pods[0]["metadata"]["name"], End(43, message="once more"))

    place.wait_for("Succeeded")
    assert attempts()["1"] == first["1"]
    assert attempts()["2"][1] == "32Mi"


def test_a_lost_artifact_is_made_again_where_it_is_needed_once_the_run_is_retried(
    place: Place, workers: StandInWorkers
) -> None:
    store = Store.open(place.store)
    keys: dict[str, str] = {}

    def decide(told: StageInput, number: int) -> End:
        """The merge misses what it reads the first time."""
        keys[told.stage_id] = told.key
        if (told.stage_id, number) == ("merge/1", 1):
            for file in store.list(f"{artifacts.stage('rl', keys['rl/1/1'])}/attempts"):
                store.delete(file.path)
            return End(42, message="the object is gone")
        return End()

    workers.decide = decide
    place.controller()
    spec = spec_file(place, iterations=1)
    call(place, "apply", spec)
    assert "the object is gone" in place.wait_for("Stalled")["message"]

    assert call(place, "retry", "demo").code == 0

    place.wait_for("Succeeded")
    assert place.jobs_by_stage()["merge/1"] == 2
    counts = {stage: count for stage, count in workers.started.items() if count > 1}
    assert counts == {keys["rl/1/1"]: 2, keys["merge/1"]: 2}
    said = [
        each["message"]
        for versions in place.history.versions.values()
        for version in versions
        for each in version.get("status", {}).get("conditions", ())
        if each["type"] == "Stalled" and each["status"] == "True"
    ]
    assert all("the object is gone" in message for message in said)
