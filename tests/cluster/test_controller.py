"""The controller on a real API server, Job controller and scheduler; KWOK's nodes, stand-in workers, a real store."""

from __future__ import annotations

import json
import random
import signal
import threading
import time

import pytest

from tests.cluster.controllers import Place
from tests.cluster.stand_in_workers import End, StandInWorkers
from warpctl import artifacts, names
from warpctl.kube.resources import EVENTS, JOBS, LEASES, PODS, SERVICES, WARPRUNS
from warpctl.spec.stage_input import StageInput
from warpctl.storage.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


def test_a_run_goes_to_its_end_with_one_job_a_stage(place: Place, workers: StandInWorkers) -> None:
    place.controller()
    place.create()

    place.wait_for("Succeeded")

    stages = place.jobs_by_stage()
    assert set(stages.values()) == {1}
    assert {"rl/1/1", "rl/1/2", "merge/1", "rl/2/1", "rl/2/2", "merge/2", "report/final"} <= set(stages)
    assert set(workers.started.values()) == {1}
    place.wait(lambda: all("ttlSecondsAfterFinished" in job["spec"] for job in place.jobs()), "Jobs go by themselves")
    status = place.get()["status"]
    assert status["iterationText"] == "2/2"
    assert {each["type"] for each in status["conditions"]} == {
        "Ready",
        "Reconciling",
        "Stalled",
        "Suspended",
        "Succeeded",
    }
    reasons = [
        each["reason"]
        for each in place.api.list(EVENTS, place.namespace).items
        if each["involvedObject"]["kind"] == "WarpRun"
    ]
    assert sorted(reasons) == ["IterationMerged", "IterationMerged", "Succeeded"]


def test_a_finished_run_costs_a_new_controller_nothing(place: Place, workers: StandInWorkers) -> None:
    first = place.controller()
    place.create()
    place.wait_for("Succeeded")
    assert first.stop() == 0
    before = place.get()["metadata"]["resourceVersion"]

    second = place.controller()
    place.wait(lambda: "leading" in second.said(), "it leads")
    time.sleep(1.0)

    assert place.get()["metadata"]["resourceVersion"] == before
    assert second.stop() == 0


@pytest.mark.timeout(400)
def test_a_controller_that_is_killed_at_twenty_random_moments_makes_nothing_twice(
    place: Place, workers: StandInWorkers
) -> None:
    chance = random.Random(7)
    is_over = threading.Event()
    workers.seconds = 0.3

    def decide(told: StageInput, number: int) -> End:
        """The last member ends when the killing is over, so that there is something to disturb all the time."""
        if told.stage_id == "rl/6/2":
            is_over.wait(300)
        return End()

    workers.decide = decide
    place.create(iterations=6)
    fast = place.controller()
    for _ in range(20):
        time.sleep(chance.uniform(1.2, 3.5))
        fast.kill()
        # A killed leader's lease would be waited for, 15 s each time: take it away as an operator would.
        place.api.delete(LEASES, place.namespace, names.LEASE)
        fast = place.controller()
    is_over.set()

    place.wait_for("Succeeded", seconds=150)

    assert set(place.jobs_by_stage().values()) == {1}
    assert set(workers.started.values()) == {1}
    assert set(workers.published.values()) == {1}


def test_two_controllers_work_as_one_when_the_lead_changes(place: Place, workers: StandInWorkers) -> None:
    workers.seconds = 1.0
    first = place.controller()
    place.wait(lambda: "leading" in first.said(), "the first leads")
    second = place.controller()
    place.create()
    place.wait(place.jobs, "a first Job")

    first.signal(signal.SIGSTOP)
    place.wait(lambda: "leading" in second.said(), "the second leads", 40)
    first.signal(signal.SIGCONT)

    place.wait_for("Succeeded")
    assert first.process is not None
    assert first.process.wait(30) == 1  # it has lost its lease, and leaves
    assert set(place.jobs_by_stage().values()) == {1}
    assert set(workers.started.values()) == {1}


def test_a_failed_attempt_is_followed_by_another_and_a_final_one_by_none(place: Place, workers: StandInWorkers) -> None:
    def decide(told: StageInput, number: int) -> End:
        if told.stage_id == "rl/1/1" and number == 1:
            return End(43, reason="Error", message="no answer from the judge")
        if told.stage_id == "rl/1/2":
            return End(42, message='2026 error InputError error="no pad token" hint="add one"')
        return End()

    workers.decide = decide
    place.controller()
    place.create()

    stalled = place.wait_for("Stalled")

    assert "rl/1/2" in stalled["message"]
    assert "no pad token" in stalled["message"]
    assert "exit code 42" in stalled["message"]
    assert place.jobs_by_stage()["rl/1/1"] == 2
    assert place.jobs_by_stage()["rl/1/2"] == 1
    place.wait(lambda: place.get()["status"]["retries"] == 2, "both failures are counted")

    # What was wrong is mended: `warpctl retry` pardons what failed before.
    workers.decide = lambda told, number: End()
    time.sleep(1.1)
    place.patch({"metadata": {"annotations": {names.RETRY: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}}})
    place.wait_for("Succeeded")
    assert place.jobs_by_stage()["rl/1/2"] == 2


def test_an_eviction_does_not_count_toward_the_limit(place: Place, workers: StandInWorkers) -> None:
    workers.decide = lambda told, number: None if told.stage_id == "rl/1/1" and number <= 2 else End()
    place.controller()
    place.create(retry={"limit": 0, "backoffSeconds": 0})

    for number in (1, 2):
        place.wait(lambda n=number: workers.started[_key(workers, "rl/1/1")] == n, f"start {number} of rl/1/1")
        pod = next(
            each
            for each in place.api.list(PODS, place.namespace, labels=f"{names.ITERATION}=1,{names.MEMBER}=1").items
            if each["status"].get("phase") == "Running"
        )
        place.api.request(
            "POST",
            PODS.path(place.namespace, pod["metadata"]["name"], "eviction"),
            body={
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": pod["metadata"]["name"], "namespace": place.namespace},
            },
            what="evict",
        )

    place.wait_for("Succeeded")
    assert place.jobs_by_stage()["rl/1/1"] == 3


def test_out_of_memory_is_said_and_tried_again(place: Place, workers: StandInWorkers) -> None:
    workers.decide = lambda told, number: (
        End(137, reason="OOMKilled") if told.stage_id == "rl/1/1" and number == 1 else End()
    )
    place.controller()
    place.create(retry={"limit": 0, "backoffSeconds": 2})

    place.wait(
        lambda: any("out of memory" in s.get("message", "") for s in place.get().get("status", {}).get("stages", ())),
        "the status says so",
    )
    place.wait_for("Succeeded")
    assert place.jobs_by_stage()["rl/1/1"] == 2


def test_a_pod_that_cannot_be_scheduled_says_why(place: Place, workers: StandInWorkers) -> None:
    place.controller()
    place.create(compute={"import": {"cpu": "100000"}})

    place.wait(lambda: "Insufficient cpu" in place.condition("Ready").get("message", ""), "the scheduler's words", 60)
    assert place.condition("Stalled")["status"] == "False"


def test_a_quota_that_is_used_up_says_so(place: Place, workers: StandInWorkers) -> None:
    place.api.request(
        "POST",
        f"/api/v1/namespaces/{place.namespace}/resourcequotas",
        body={
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none"},
            "spec": {"hard": {"pods": "0"}},
        },
        what="set a quota",
    )
    place.controller()
    place.create()

    place.wait(lambda: "exceeded quota" in place.condition("Ready").get("message", ""), "the quota is named", 60)
    assert place.api.list(PODS, place.namespace).items == []
    assert place.condition("Stalled")["status"] == "False"


def test_suspend_stops_the_workers_and_resume_goes_on(place: Place, workers: StandInWorkers) -> None:
    workers.decide = lambda told, number: None if told.stage_id.startswith("rl/1/") and number == 1 else End()
    place.controller()
    place.create()
    place.wait(lambda: {"rl/1/1", "rl/1/2"} <= set(workers.stages.values()), "both members train")

    place.patch({"spec": {"suspend": True}})
    place.wait_for("Suspended")
    place.wait(lambda: not [job for job in place.jobs() if not _is_over(job)], "the Jobs are gone")
    jobs_then = place.jobs_by_stage()
    time.sleep(1.0)
    assert place.jobs_by_stage() == jobs_then

    place.patch({"spec": {"suspend": False}})
    place.wait_for("Succeeded")
    assert place.get()["status"]["retries"] == 0


def test_cancel_holds_until_the_annotation_goes_and_never_touches_the_spec(
    place: Place, workers: StandInWorkers
) -> None:
    workers.decide = lambda told, number: None if told.stage_id.startswith("rl/1/") and number == 1 else End()
    place.controller()
    place.create()
    place.wait(lambda: "rl/1/1" in workers.stages.values(), "a member trains")
    generation = place.get()["metadata"]["generation"]

    place.patch({"metadata": {"annotations": {names.CANCEL: "by alice"}}})
    assert "cancelled" in place.wait_for("Suspended")["message"]
    place.patch({"metadata": {"annotations": {names.CANCEL: None}}})

    place.wait_for("Succeeded")
    assert place.get()["metadata"]["generation"] == generation


def test_two_runs_with_equal_stages_share_their_jobs(place: Place, workers: StandInWorkers) -> None:
    workers.seconds = 0.5
    place.controller()
    place.create("one")
    place.create("two")

    place.wait_for("Succeeded", "one")
    place.wait_for("Succeeded", "two")

    assert set(workers.started.values()) == {1}
    shared = {stage: count for stage, count in place.jobs_by_stage().items() if not stage.startswith("report")}
    assert set(shared.values()) == {1}


def test_a_changed_spec_makes_again_what_changed_and_a_reverted_one_nothing(
    place: Place, workers: StandInWorkers
) -> None:
    saved: list[str] = []
    kept: list[bool] = []

    def decide(told: StageInput, number: int) -> End | None:
        """The first RL run of iteration 2 that starts saves a resume state and does not end by itself."""
        if told.stage_id == "rl/2/1" and not saved:
            path = f"{artifacts.resume(told.kind, told.key, told.attempt_id, 7)}/state.json"
            Store.open(told.storage).write(path, b"{}")
            saved.append(path)
            return None
        if saved and told.key in saved[0]:
            kept.append(Store.open(told.storage).stat(saved[0]) is not None)
        return End()

    workers.decide = decide
    place.controller()
    place.create()
    place.wait(lambda: "rl/2/1" in workers.stages.values(), "the second iteration trains")
    before = dict(workers.started)

    place.patch({"spec": {"merge": {"litiRate": "0.5"}}})
    place.wait_for("Succeeded")
    after = dict(workers.started)
    again = {workers.stages[key] for key in after if key not in before}
    assert "rl/1/1" not in again
    assert {"merge/1", "rl/2/1", "rl/2/2", "merge/2"} <= again

    place.patch({"spec": {"merge": {"litiRate": None}}})
    place.wait(lambda: place.get()["status"]["observedGeneration"] == 3, "the revert is seen")
    place.wait_for("Succeeded")
    assert all(workers.started[key] == count for key, count in before.items() if workers.stages[key].startswith("rl/1"))
    assert kept == [True]  # the member that was cancelled goes on from what it had saved


def test_a_spec_that_is_edited_twice_within_a_second_ends_as_the_last_one_says(
    place: Place, workers: StandInWorkers
) -> None:
    workers.seconds = 0.3
    place.controller()
    place.create()
    place.wait(place.jobs, "a first Job")

    place.patch({"spec": {"iterations": 3}})
    place.patch({"spec": {"iterations": 1}})

    place.wait_for("Succeeded")
    place.wait(lambda: place.get()["status"]["iterationText"] == "1/1", "one iteration")
    assert place.get()["status"]["observedGeneration"] == 3


def test_a_stage_of_two_nodes_has_two_pods_that_find_each_other_by_name(place: Place, workers: StandInWorkers) -> None:
    workers.decide = lambda told, number: None if told.stage_id == "rl/1/1" else End()
    place.controller()
    place.create(compute={**place.spec()["compute"], "rl": {**place.spec()["compute"]["rl"], "nodes": 2}})
    place.wait(lambda: "rl/1/1" in workers.stages.values(), "the member trains")
    job = next(each for each in place.jobs() if each["metadata"]["annotations"][names.STAGE_ID] == "rl/1/1")
    name = job["metadata"]["name"]

    place.wait(lambda: place.api.get(SERVICES, place.namespace, name), "its Service")
    pods = place.api.list(PODS, place.namespace, labels=f"{names.JOB_NAME_LABEL}={name}").items
    assert {each["spec"]["subdomain"] for each in pods} == {name}
    assert {each["spec"]["hostname"] for each in pods} == {f"{name}-0", f"{name}-1"}

    place.api.delete(JOBS, place.namespace, name, propagation="Foreground")
    place.wait(lambda: place.api.get(SERVICES, place.namespace, name) is None, "the Service goes with its Job")


def test_how_far_a_worker_is_shows_in_kubectl_get(api_cluster, place: Place, workers: StandInWorkers) -> None:
    def say(told: StageInput, number: int) -> End | None:
        if told.stage_id != "rl/1/2":
            return End()
        said = {"done": 412, "total": 600, "unit": "steps", "elapsedSeconds": 9.5, "score": 1.25}
        path = artifacts.progress(told.kind, told.key, told.attempt_id)
        Store.open(told.storage).write(path, json.dumps(said).encode())
        return None

    workers.decide = say
    place.controller()
    place.create()

    def row() -> str:
        return str(api_cluster.kubectl("get", "warpruns", "-o", "wide", "-n", place.namespace))

    place.wait(lambda: "1 running: rl/1/2 step 412/600" in row(), "progress in kubectl get")
    stage = next(each for each in place.get()["status"]["stages"] if each["id"] == "rl/1/2")
    assert stage["progress"] == "step 412/600"


def test_a_worker_that_says_done_without_publishing_stalls_its_run(place: Place, workers: StandInWorkers) -> None:
    workers.decide = lambda told, number: End(publishes=told.stage_id != "rl/1/1")
    place.controller()
    place.create()

    stalled = place.wait_for("Stalled")

    assert "commit marker is not in the store" in stalled["message"]


def test_a_succeeded_job_that_is_gone_is_not_made_again(place: Place, workers: StandInWorkers) -> None:
    workers.decide = lambda told, number: None if told.stage_id == "merge/1" and number == 1 else End()
    place.controller()
    place.create()
    place.wait(lambda: "merge/1" in workers.stages.values(), "the merge has begun")

    for job in place.jobs():
        if _is_over(job):
            place.api.delete(JOBS, place.namespace, job["metadata"]["name"])
    pod = next(each for each in place.api.list(PODS, place.namespace).items if each["status"].get("phase") == "Running")
    workers.finish(pod["metadata"]["name"], End(1))

    place.wait_for("Succeeded")
    assert {workers.stages[key]: count for key, count in workers.started.items() if count > 1} == {"merge/1": 2}


def test_what_is_not_allowed_is_refused_in_a_condition(place: Place) -> None:
    place.controller()
    place.create(storage={"uri": "gs://somebody-else/runs"})

    stalled = place.wait_for("Stalled")

    assert (stalled["reason"], "spec.storage.uri" in stalled["message"]) == ("NotAllowed", True)
    assert place.jobs() == []


def test_deleting_a_run_keeps_its_artifacts_unless_it_says_otherwise(place: Place, workers: StandInWorkers) -> None:
    place.controller()
    place.create("kept")
    place.wait_for("Succeeded", "kept")
    place.create("gone", training={"steps": [11], "batchSize": 8}, deletionPolicy="Delete")
    place.wait_for("Succeeded", "gone")
    files = {each.parent.name for each in (place.folder / "store" / "stages" / "rl").glob("*/committed.json")}
    assert len(files) == 8

    for name in ("kept", "gone"):
        place.api.delete(WARPRUNS, place.namespace, name)
    place.wait(lambda: not place.api.list(WARPRUNS, place.namespace).items, "both runs are gone")

    left = {each.parent.name for each in (place.folder / "store" / "stages" / "rl").glob("*/committed.json")}
    assert len(left) == 4
    assert left < files
    place.wait(lambda: not place.jobs(), "their Jobs go with them")


def test_a_store_that_is_gone_does_not_hold_a_deleted_run_for_ever(place: Place, workers: StandInWorkers) -> None:
    place.controller()
    place.create(deletionPolicy="Delete")
    place.wait_for("Succeeded")
    store = place.folder / "store"
    store.rename(place.folder / "elsewhere")
    store.write_text("no folder any more")

    place.api.delete(WARPRUNS, place.namespace, "demo")
    time.sleep(1.5)
    assert place.get()["metadata"]["finalizers"] == [names.FINALIZER]
    place.patch({"metadata": {"annotations": {names.ABANDON: "true"}}})

    place.wait(lambda: place.api.get(WARPRUNS, place.namespace, "demo") is None, "it is let go")


def test_a_run_that_moves_to_another_store_leaves_nothing_running_for_the_old_one(
    place: Place, workers: StandInWorkers
) -> None:
    workers.decide = lambda told, number: None if told.storage == place.store and told.stage_id == "rl/1/1" else End()
    place.controller()
    place.create()
    place.wait(lambda: "rl/1/1" in workers.stages.values(), "a member trains")

    place.patch({"spec": {"storage": {"uri": f"{place.store}-2"}}})

    place.wait_for("Succeeded")
    place.wait(lambda: all(_is_over(job) for job in place.jobs()), "no Job of the old store goes on")
    assert not list((place.folder / "store" / "stages" / "merge").glob("*/committed.json"))
    assert len(list((place.folder / "store-2" / "stages" / "merge").glob("*/committed.json"))) == 2


def test_deleting_a_run_never_sweeps_a_store_that_it_may_not_use(place: Place, workers: StandInWorkers) -> None:
    place.controller()
    place.create(deletionPolicy="Delete")
    place.wait_for("Succeeded")
    assert place.controllers[0].stop() == 0
    files = sorted(each for each in (place.folder / "store").rglob("*") if each.is_file())

    place.config_body["tenancy"] = [{"storage": ["gs://ours"]}]
    place.controller()
    place.api.delete(WARPRUNS, place.namespace, "demo")

    place.wait(lambda: place.api.get(WARPRUNS, place.namespace, "demo") is None, "it is gone")
    assert sorted(each for each in (place.folder / "store").rglob("*") if each.is_file()) == files


def test_a_name_of_63_characters_works(place: Place, workers: StandInWorkers) -> None:
    name = "n" * 63
    place.controller()
    place.create(name)

    place.wait_for("Succeeded", name)
    assert {job["metadata"]["labels"][names.RUN] for job in place.jobs()} == {name}


def test_a_restarted_apiserver_and_a_paused_etcd_are_outlived(
    place: Place, workers: StandInWorkers, api_cluster
) -> None:
    workers.seconds = 0.5
    place.controller()
    place.create()
    place.wait(place.jobs, "a first Job")

    api_cluster.stop_apiserver(kill=True)
    api_cluster.start_apiserver()

    place.wait_for("Succeeded", seconds=120)
    assert set(place.jobs_by_stage().values()) == {1}
    assert set(workers.started.values()) == {1}


def _is_over(job: dict) -> bool:
    return any(each["type"] in ("Complete", "Failed") for each in job.get("status", {}).get("conditions") or ())


def _key(workers: StandInWorkers, stage: str) -> str:
    return next((key for key, name in workers.stages.items() if name == stage), "")
