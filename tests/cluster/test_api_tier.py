"""The control plane is a real one, and KWOK's pods do what their annotations say."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import kubernetes
import pytest

from tests.cluster.harness.kwok import kwok_annotations

pytestmark = pytest.mark.cluster
WAIT_SECONDS = 90


def wait_for(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    pytest.fail(f"waited {seconds} s in vain until {what}")


def job(name: str, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A Job that the restricted Pod Security level admits."""
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "main", "image": "none.invalid/none", "securityContext": secure}],
    }
    template = {"metadata": {"annotations": annotations or {}}, "spec": pod}
    return {"metadata": {"name": name}, "spec": {"backoffLimit": 0, **spec, "template": template}}


def conditions(batch: kubernetes.client.BatchV1Api, name: str, namespace: str) -> dict[str, Any]:
    """The true conditions of a Job by type."""
    found = batch.read_namespaced_job_status(name, namespace).status.conditions or ()
    return {condition.type: condition for condition in found if condition.status == "True"}


@pytest.fixture
def batch(api_cluster) -> kubernetes.client.BatchV1Api:
    return kubernetes.client.BatchV1Api(api_cluster.client())


@pytest.fixture
def core(api_cluster) -> kubernetes.client.CoreV1Api:
    return kubernetes.client.CoreV1Api(api_cluster.client())


def test_fifty_jobs_run_and_complete_on_kwoks_nodes(batch, core, namespace) -> None:
    for number in range(50):
        batch.create_namespaced_job(namespace, job(f"job-{number}"))

    def succeeded() -> int:
        jobs = batch.list_namespaced_job(namespace).items
        return sum(item.status.succeeded == 1 for item in jobs) == 50

    wait_for(succeeded, "50 Jobs have succeeded")
    pods = core.list_namespaced_pod(namespace).items
    assert len(pods) == 50
    assert {pod.spec.node_name for pod in pods} <= {"kwok-0", "kwok-1", "kwok-2"}


def test_a_pod_ends_with_the_exit_code_that_its_annotations_ask_for(batch, core, namespace) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    annotations = kwok_annotations(exit_code=42, reason="OOMKilled", message="the last words", delay_seconds=0.5)
    batch.create_namespaced_job(namespace, job("failing", annotations, podFailurePolicy={"rules": [rule]}))

    failed = wait_for(lambda: conditions(batch, "failing", namespace).get("Failed"), "the Job has failed")
    state = core.list_namespaced_pod(namespace).items[0].status.container_statuses[0].state.terminated
    assert failed.reason == "PodFailurePolicy"
    assert (state.exit_code, state.reason, state.message) == (42, "OOMKilled", "the last words")


def test_a_pod_that_never_finishes_ends_once_a_test_takes_the_annotation_away(batch, core, namespace) -> None:
    batch.create_namespaced_job(namespace, job("endless", kwok_annotations(never_finish=True)))
    pods = wait_for(
        lambda: core.list_namespaced_pod(namespace, field_selector="status.phase=Running").items, "the pod runs"
    )
    time.sleep(1)
    assert conditions(batch, "endless", namespace) == {}

    change = {"metadata": {"annotations": dict.fromkeys(kwok_annotations(never_finish=True))}}
    core.patch_namespaced_pod(pods[0].metadata.name, namespace, change)

    wait_for(lambda: "Complete" in conditions(batch, "endless", namespace), "the Job is complete")


def test_a_pod_that_waits_says_why_and_one_that_fits_nowhere_too(batch, core, namespace) -> None:
    batch.create_namespaced_job(namespace, job("no-image", kwok_annotations(waiting="ImagePullBackOff")))
    big = job("big")
    big["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "8"}}
    batch.create_namespaced_job(namespace, big)

    def pod_of(name: str) -> Any:
        items = core.list_namespaced_pod(namespace, label_selector=f"job-name={name}").items
        return items[0] if items else None

    def waiting_reason() -> str | None:
        pod = pod_of("no-image")
        statuses = (pod and pod.status.container_statuses) or ()
        return next((status.state.waiting.reason for status in statuses if status.state.waiting), None)

    def unschedulable() -> str | None:
        pod = pod_of("big")
        found = (pod and pod.status.conditions) or ()
        return next((one.message for one in found if one.reason == "Unschedulable"), None)

    assert wait_for(waiting_reason, "the pod waits") == "ImagePullBackOff"
    assert "Insufficient nvidia.com/gpu" in wait_for(unschedulable, "the scheduler gave up")
    batch.delete_namespaced_job("no-image", namespace, propagation_policy="Foreground")
    wait_for(lambda: pod_of("no-image") is None, "the pod of the deleted Job has gone")


def test_the_restricted_level_refuses_a_pod_that_may_run_as_root(core, namespace) -> None:
    pod = {"metadata": {"name": "root"}, "spec": {"containers": [{"name": "main", "image": "none"}]}}

    with pytest.raises(kubernetes.client.ApiException, match="violates PodSecurity"):
        core.create_namespaced_pod(namespace, pod)


def test_a_user_has_the_rights_that_rbac_gives_and_the_audit_log_tells_what_was_used(api_cluster, namespace) -> None:
    core = kubernetes.client.CoreV1Api(api_cluster.client("jane", groups=("readers",)))
    with pytest.raises(kubernetes.client.ApiException, match=r"jane.*cannot list"):
        core.list_namespaced_pod(namespace)

    rights = kubernetes.client.RbacAuthorizationV1Api(api_cluster.client())
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    rights.create_namespaced_role(namespace, {"metadata": {"name": "read"}, "rules": [rule]})
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "readers"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "read"}
    rights.create_namespaced_role_binding(
        namespace, {"metadata": {"name": "read"}, "subjects": [subject], "roleRef": role}
    )

    def may_list() -> bool:
        try:
            return core.list_namespaced_pod(namespace).items == []
        except kubernetes.client.ApiException:
            return False

    wait_for(may_list, "the authorizer has seen the role")

    def audited() -> set[tuple[str, str, int]]:
        events = [event for event in api_cluster.requests("jane") if event["objectRef"]["namespace"] == namespace]
        return {(one["verb"], one["objectRef"]["resource"], one["responseStatus"]["code"]) for one in events}

    wait_for(lambda: audited() == {("list", "pods", 403), ("list", "pods", 200)}, "the audit log has both requests")


def test_a_service_account_logs_in_with_a_token(api_cluster, namespace) -> None:
    path = api_cluster.service_account_kubeconfig(namespace, "default")
    review = kubernetes.client.AuthenticationV1Api(api_cluster.client_of(path)).create_self_subject_review({})

    assert review.status.user_info.username == f"system:serviceaccount:{namespace}:default"


def test_kubectl_of_the_same_version_works(api_cluster, namespace) -> None:
    api_cluster.kubectl("create", "configmap", "x", "--from-literal=a=1", f"--namespace={namespace}")

    assert api_cluster.kubectl("get", "configmap", "x", f"--namespace={namespace}", "-ojsonpath={.data.a}") == "1"
