"""What a Job and its pods say, as one attempt."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from warpctl import names
from warpctl.executors.job_facts import attempt, job_facts, pod_facts
from warpctl.plan.observed import AttemptState, FailureClass

NOW = datetime(2026, 11, 21, 12, 10, tzinfo=UTC)
CREATED, STARTED, ENDED = "2026-11-21T12:00:00Z", "2026-11-21T12:01:00Z", "2026-11-21T12:05:00Z"


def a_job(*conditions: dict[str, str], gpus: int = 2, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "ml",
            "name": "rl-0123456789ab-cdef-a3",
            "uid": "job-uid",
            "resourceVersion": "7",
            "creationTimestamp": CREATED,
            "labels": {names.RUN: "demo", names.ATTEMPT: "3"},
            "annotations": {names.STAGE_KEY: "k" * 64, names.STORAGE: "gs://b", names.GPUS: str(gpus)},
            "ownerReferences": [{"uid": "run-uid", "controller": True}],
            **metadata,
        },
        "spec": {"completions": 1},
        "status": {"startTime": CREATED, "conditions": list(conditions)},
    }


def failed(message: str, reason: str = "PodFailurePolicy") -> dict[str, str]:
    return {"type": "Failed", "status": "True", "reason": reason, "message": message, "lastTransitionTime": ENDED}


def a_pod(state: dict[str, Any] | None = None, *conditions: dict[str, str], name: str = "p", **status: Any) -> Any:
    return pod_facts(
        {
            "metadata": {
                "namespace": "ml",
                "name": name,
                "uid": f"{name}-uid",
                "creationTimestamp": CREATED,
                "labels": {names.JOB_UID_LABEL: "job-uid", names.INDEX_LABEL: "0"},
            },
            "status": {
                "conditions": list(conditions),
                **({"containerStatuses": [{"state": state}]} if state is not None else {}),
                **status,
            },
        }
    )


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, "startedAt": STARTED}}


def seen(job: dict[str, Any], *pods: Any, refused: str = "") -> Any:
    return attempt(job_facts(job), pods, NOW, refused=refused)


def test_a_job_is_active_until_it_is_complete_or_failed() -> None:
    early = {"type": "FailureTarget", "status": "True", "lastTransitionTime": ENDED}
    no = {"type": "Complete", "status": "False", "lastTransitionTime": ENDED}
    complete = {"type": "Complete", "status": "True", "lastTransitionTime": ENDED}

    states = [seen(a_job(*conditions)).state for conditions in ((), (early,), (no,), (early, complete))]

    assert states == [AttemptState.ACTIVE, AttemptState.ACTIVE, AttemptState.ACTIVE, AttemptState.COMPLETE]


@pytest.mark.parametrize(
    ("message", "failure"),
    [
        ("Pod ml/p has condition DisruptionTarget matching FailJob rule at index 0", FailureClass.INFRASTRUCTURE),
        ("Container worker for pod ml/p failed with exit code 42 matching FailJob rule at index 1", FailureClass.FINAL),
        (
            "Container worker for pod ml/p failed with exit code 137 matching FailJob rule at index 2",
            FailureClass.INFRASTRUCTURE,
        ),
        ("Job has reached the specified backoff limit", FailureClass.APPLICATION),
    ],
)
def test_a_failed_job_names_its_class_also_without_pods(message: str, failure: FailureClass) -> None:
    assert seen(a_job(failed(message))).failure is failure


def test_a_container_that_was_killed_for_memory_is_told_how_to_get_more() -> None:
    found = seen(a_job(failed("matching FailJob rule at index 2")), a_pod(ended(137, "OOMKilled")))

    assert found.failure is FailureClass.INFRASTRUCTURE
    assert found.exit_code == 137
    assert "out of memory" in found.message
    assert "raise spec.compute.rl.memory or lower the batch" in found.message


def test_a_failed_worker_is_quoted_with_its_last_words() -> None:
    said = '2026 info started\n2026 error InputError error="no such model" hint="look"\n'

    found = seen(a_job(failed("rule at index 1 FailJob rule at index 1")), a_pod(ended(42, message=said)))

    assert (found.failure, found.exit_code) == (FailureClass.FINAL, 42)
    assert "exit code 42: " in found.message
    assert "no such model" in found.message


def test_a_retryable_exit_code_that_no_rule_names_is_an_application_failure() -> None:
    found = seen(a_job(failed("backoff limit", "BackoffLimitExceeded")), a_pod(ended(43)))

    assert (found.failure, found.exit_code) == (FailureClass.APPLICATION, 43)


def test_gpu_seconds_count_from_the_container_to_the_end_times_the_gpus() -> None:
    assert seen(a_job(failed("x")), a_pod(ended(1))).gpu_seconds == 2 * 240
    assert seen(a_job(), a_pod({"running": {"startedAt": STARTED}})).gpu_seconds == 2 * 540
    assert seen(a_job(), a_pod({"waiting": {"reason": "ContainerCreating"}})).gpu_seconds == 0


def test_the_attempt_id_is_that_of_the_process_that_writes() -> None:
    assert seen(a_job(), a_pod({"running": {"startedAt": STARTED}})).attempt_id == "3-job-uid-0-p-uid"
    assert seen(a_job()).attempt_id == "3-job-uid"


def test_every_pod_of_a_job_writes_for_its_attempt() -> None:
    found = seen(a_job(), a_pod({"running": {"startedAt": STARTED}}))
    assert found.wrote("3-job-uid-0-p-uid")
    assert found.wrote("3-job-uid-1-other-pod")
    assert not found.wrote("3-job-uid2-1-other-pod")
    assert not found.wrote("30-job-uid-0-p-uid")


@pytest.mark.parametrize(
    ("kind", "nodes", "is_shared_out"), [("merge", 2, True), ("merge", 1, False), ("rl", 2, False)]
)
def test_of_several_nodes_only_those_of_a_merge_share_the_stage_out(kind: str, nodes: int, is_shared_out: bool) -> None:
    job = a_job(name=f"{kind}-0123456789ab-cdef-a3")
    job["spec"]["completions"] = nodes
    assert seen(job).is_shared_out is is_shared_out


def test_a_job_that_is_being_deleted_is_stopping_as_long_as_its_pods_live() -> None:
    found = seen(a_job(deletionTimestamp=ENDED), a_pod({"running": {"startedAt": STARTED}}))

    assert (found.state, found.is_stopping, found.waits_for) == (AttemptState.ACTIVE, True, "")


def test_an_attempt_says_why_it_does_not_begin() -> None:
    unschedulable = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }
    pulling = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}}
    running = {"running": {"startedAt": STARTED}}

    assert "Insufficient nvidia.com/gpu" in seen(a_job(), a_pod(None, unschedulable, phase="Pending")).waits_for
    assert seen(a_job(), a_pod(pulling)).waits_for == 'ImagePullBackOff: Back-off pulling image "x"'
    assert seen(a_job(), refused="exceeded quota").waits_for == "exceeded quota"
    assert seen(a_job(), a_pod(running), refused="exceeded quota").waits_for == ""
    suspended = a_job() | {"spec": {"suspend": True}}
    assert "Kueue" in seen(suspended).waits_for


def test_of_two_pods_the_one_that_does_not_fit_is_told_of_though_the_other_runs() -> None:
    unschedulable = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    waiting = replace(a_pod(None, unschedulable, name="q"), index=1)

    found = seen(a_job(), a_pod({"running": {"startedAt": STARTED}}), waiting)

    assert found.waits_for == "cannot be scheduled: 0/3 nodes are available"


def test_of_several_that_failed_the_one_without_memory_explains_it() -> None:
    killed = replace(a_pod(ended(137, "OOMKilled"), name="q"), index=1)

    found = seen(a_job(failed("rule at index 1 FailJob rule at index 1")), a_pod(ended(44)), killed)

    assert found.failure is FailureClass.INFRASTRUCTURE
    assert found.message.startswith("out of memory")


def test_a_job_whose_pods_have_gone_before_it_is_charged_until_they_went() -> None:
    went = datetime(2026, 11, 21, 12, 4, tzinfo=UTC)
    pod = replace(a_pod({"running": {"startedAt": STARTED}}), is_running=False, gone_at=went)

    assert seen(a_job(deletionTimestamp=ENDED), pod).gpu_seconds == 2 * 180


def test_a_finished_job_that_is_being_deleted_is_no_witness() -> None:
    complete = {"type": "Complete", "status": "True", "lastTransitionTime": ENDED}

    assert seen(a_job(complete, deletionTimestamp=ENDED)).is_stopping
    assert not seen(a_job(complete)).is_stopping
    assert not seen(a_job(failed("x"), deletionTimestamp=ENDED)).is_stopping
