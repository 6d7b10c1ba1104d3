"""The node runs real pods of our images, under the restricted Pod Security level."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import kubernetes
import pytest

pytestmark = [pytest.mark.node, pytest.mark.timeout(1200)]
WAIT_SECONDS = 180

SPEAK_AND_LISTEN = """
import os, socket, time, urllib.request
index = int(os.environ["JOB_COMPLETION_INDEX"])
listener = socket.create_server(("", 7000))
peer = f"pair-{1 - index}.pair"
deadline = time.monotonic() + 60
while True:
    try:
        connection = socket.create_connection((peer, 7000), timeout=2)
        break
    except OSError as error:
        print("not yet", error, flush=True)
        assert time.monotonic() < deadline, error
        time.sleep(0.2)
other, _ = listener.accept()
other.sendall(b"from %d" % index)
print("heard", connection.recv(100).decode(), "as", os.getuid(), flush=True)
"""
"""Each of two pods finds the other by the name that the headless Service gives it."""


def pod_template(image: str, *command: str, **container: Any) -> dict[str, Any]:
    """A pod that the restricted level admits, with a root that cannot be written to."""
    secure = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "main",
                "image": image,
                "command": list(command),
                "securityContext": secure,
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                **container,
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }


def wait_for(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.2)
    pytest.fail(f"waited {seconds} s in vain until {what}")


@pytest.fixture
def core(node_cluster) -> kubernetes.client.CoreV1Api:
    return kubernetes.client.CoreV1Api(node_cluster.client())


@pytest.fixture
def batch(node_cluster) -> kubernetes.client.BatchV1Api:
    return kubernetes.client.BatchV1Api(node_cluster.client())


def run_pod(core: kubernetes.client.CoreV1Api, namespace: str, name: str, spec: dict[str, Any]) -> tuple[Any, str]:
    """Run a pod to its end; returns its container's end and its log, which comes through the apiserver."""
    core.create_namespaced_pod(namespace, {"metadata": {"name": name}, "spec": spec})

    def ended() -> Any:
        statuses = core.read_namespaced_pod_status(name, namespace).status.container_statuses or ()
        return next((status.state.terminated for status in statuses if status.state.terminated), None)

    return wait_for(ended, f"pod {name} has ended"), log_of(core, namespace, name)


def log_of(core: kubernetes.client.CoreV1Api, namespace: str, name: str) -> str:
    """Raw: kubernetes 36 gives the text of the bytes object otherwise, quotes and all."""
    return core.read_namespaced_pod_log(name, namespace, _preload_content=False).data.decode()


def test_two_pods_of_an_indexed_job_find_each_other_by_name(node_cluster, batch, core, namespace) -> None:
    headless = {"clusterIP": "None", "selector": {"job-name": "pair"}, "publishNotReadyAddresses": True}
    core.create_namespaced_service(namespace, {"metadata": {"name": "pair"}, "spec": headless})
    pod = pod_template(node_cluster.base_image(), "python", "-c", SPEAK_AND_LISTEN) | {"subdomain": "pair"}
    spec = {
        "completions": 2,
        "parallelism": 2,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]}]},
        "template": {"spec": pod},
    }
    batch.create_namespaced_job(namespace, {"metadata": {"name": "pair"}, "spec": spec})

    def finished() -> bool:
        conditions = batch.read_namespaced_job_status("pair", namespace).status.conditions or ()
        return any(condition.type in ("Complete", "Failed") and condition.status == "True" for condition in conditions)

    wait_for(finished, "the Job has ended")
    logs = {
        pod.metadata.annotations["batch.kubernetes.io/job-completion-index"]: log_of(
            core, namespace, pod.metadata.name
        ).splitlines()[-1]
        for pod in core.list_namespaced_pod(namespace).items
    }
    assert logs == {"0": "heard from 1 as 10001", "1": "heard from 0 as 10001"}


def test_a_pod_reaches_the_apiserver_by_its_service_and_the_object_store(node_cluster, core, namespace) -> None:
    code = f"""
import ssl, urllib.request
trusting = ssl._create_unverified_context()
try:
    urllib.request.urlopen("https://kubernetes.default.svc.cluster.local/api", context=trusting, timeout=10)
except urllib.error.HTTPError as error:
    print(error.code)
print(urllib.request.urlopen("{node_cluster.storage_endpoint}/storage/v1/b/warp", timeout=10).status)
"""
    end, log = run_pod(core, namespace, "reach", pod_template(node_cluster.base_image(), "python", "-c", code))

    assert (end.exit_code, log.split()) == (0, ["403", "200"])


def test_a_pod_that_takes_more_memory_than_its_limit_is_killed_for_it(node_cluster, core, namespace) -> None:
    command = ("python", "-c", "print('start', flush=True); x = bytearray(10**9)")
    limited = {"resources": {"limits": {"memory": "64Mi"}}}
    end, log = run_pod(core, namespace, "hungry", pod_template(node_cluster.base_image(), *command, **limited))

    assert (end.exit_code, end.reason, log) == (137, "OOMKilled", "start\n")


def test_a_root_that_cannot_be_written_to_is_not_and_tmp_is(node_cluster, core, namespace) -> None:
    code = "import os; open('/tmp/x', 'w'); print(os.access('/', os.W_OK), os.access('/opt', os.W_OK)); open('/x', 'w')"
    end, log = run_pod(core, namespace, "writer", pod_template(node_cluster.base_image(), "python", "-c", code))

    assert end.exit_code == 1
    assert "False False\n" in log
    assert "Read-only file system" in log


def test_the_slim_image_merges_at_once_with_kernels_compiled_when_it_was_built(node_cluster, core, namespace) -> None:
    """Its root cannot be written to, and a pod has no ten seconds for a compiler."""
    code = """
from warpctl.merging import compiled_code
compiled_code.compile_for = None
for name in ("inner_products", "combine"):
    print(callable(compiled_code.kernel(name)))
"""
    pod = pod_template(node_cluster.slim_image(), "python", "-P", "-c", code)
    end, log = run_pod(core, namespace, "kernels", pod)

    assert (end.exit_code, log.split()) == (0, ["True"] * 2), log


def test_the_slim_image_is_warpctl_without_torch(node_cluster, core, namespace) -> None:
    code = """
import importlib.util, warpctl.workers.merge, warpctl.workers.import_, warpctl.workers.report, vl_convert, s3fs, os, sys
print(importlib.util.find_spec("torch"), os.getuid(), sys.version_info >= (3, 11))
"""
    image = node_cluster.slim_image()
    end, log = run_pod(core, namespace, "slim", pod_template(image, "python", "-P", "-c", code))
    assert (end.exit_code, log) == (0, "None 10001 True\n")

    end, log = run_pod(core, namespace, "version", pod_template(image, "warpctl", "version"))
    assert end.exit_code == 0
    assert "warpctl" in log
