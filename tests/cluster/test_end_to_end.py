"""A whole WarpRun on a real Kubernetes: installed from manifests/, started by kubectl, real pods, real object store.

One run is disturbed as a cluster of spot nodes disturbs it, its merges are shared out between two pods each, and still it publishes,
bit by bit, what `warpctl run` on this machine does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders.small_run import SmallRun, make_small_laboratory, small_spec
from tests.builders.starts import UID, starts
from tests.cluster.harness import binaries
from tests.cluster.harness.node import BUCKET, NodeCluster
from tests.cluster.harness.state import TOP
from tests.cluster.installation import SYSTEM, Installation
from warpctl import names
from warpctl.render.job import render_job
from warpctl.render.service import render_service
from warpctl.spec.controller_config import ControllerConfig
from warpctl.spec.warp_run import WarpRun
from warpctl.storage.store import Store

pytestmark = [pytest.mark.node, pytest.mark.timeout(2400)]

STORE = f"gs://{BUCKET}/runs"
LABORATORY = f"gs://{BUCKET}/laboratory"
CHANGES = {
    "iterations": 2,
    # Long enough to be caught in the middle: some seconds.
    "training": small_spec(Path(), "")["spec"]["training"]
    | {
        "steps": [150, 6],
        "resumeState": {"everySteps": 10},
        "evaluation": {"everySteps": 50, "numPrompts": 4},
    },
}
SEVERAL_SHARDS = Path(__file__).parent / "several_shards" / "sitecustomize.py"
TWO_PODS_A_MERGE = {
    "nodes": 2,
    "podTemplate": {
        "env": [{"name": "PYTHONPATH", "value": "/several-shards"}],
        "volumes": [
            {"name": "shards", "mountPath": "/several-shards", "type": "configMap", "sourceName": "several-shards"}
        ],
    },
}
IN_THE_CLUSTER = CHANGES | {"compute": {"merge": TWO_PODS_A_MERGE}}


@pytest.fixture(scope="module")
def installation(node_cluster: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    config = {
        "images": {"slim": node_cluster.slim_image(), "worker": node_cluster.worker_image()},
        "defaults": {
            "cpu": "100m",
            "memory": "2Gi",
            "sharedMemory": "64Mi",
            "environment": {"STORAGE_EMULATOR_HOST": node_cluster.storage_endpoint},
        },
        "tenancy": [{"storage": [f"gs://{BUCKET}/"], "volumes": ["configMap"]}],
        "progressSeconds": 1,
    }
    made = Installation(node_cluster, tmp_path_factory.mktemp("installation"), config)
    made.apply()
    return made


@pytest.fixture(scope="module")
def laboratory(node_cluster: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The small laboratory, here and in the object store."""
    folder = make_small_laboratory(tmp_path_factory.mktemp("laboratory") / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", node_cluster.storage_endpoint)
        store = Store.open(LABORATORY)
        for path in folder.rglob("*"):
            if path.is_file():
                store.write(str(path.relative_to(folder)), path.read_bytes())
        yield folder


def cluster_spec(store: str = STORE, **changes: Any) -> str:
    """The small spec with everything in the object store."""
    return json.dumps(small_spec(Path("/nowhere"), store, **changes)).replace("/nowhere", LABORATORY)


def contents(uri: str) -> dict[str, str]:
    """Content digest of every committed stage but reports, by kind and key."""
    store = Store.open(uri)
    markers = [file.path for file in store.list("stages") if file.path.endswith("/committed.json")]
    found = (json.loads(store.read(path)) for path in markers)
    return {f"{each['kind']}/{each['key']}": each["contentDigest"] for each in found if each["kind"] != "report"}


def warp_run(cluster: NodeCluster, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("get", "warprun", "small", "-n", namespace, "-o", "json"))
    return found


def condition(run: dict[str, Any], kind: str) -> dict[str, Any]:
    conditions = run.get("status", {}).get("conditions", ())
    return next((each for each in conditions if each["type"] == kind), {})


def is_true(cluster: NodeCluster, namespace: str, kind: str) -> bool:
    return condition(warp_run(cluster, namespace), kind).get("status") == "True"


def pods_of(cluster: NodeCluster, namespace: str, kind: str) -> list[dict[str, Any]]:
    labels = f"{names.KIND}={kind}"
    found: list[dict[str, Any]] = json.loads(
        cluster.kubectl("get", "pods", "-n", namespace, "-l", labels, "-o", "json")
    )["items"]
    return found


def evict(cluster: NodeCluster, namespace: str, pod: str) -> None:
    """As `kubectl drain` does: the pod gets the condition DisruptionTarget, and SIGTERM."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def test_a_run_that_is_disturbed_publishes_what_one_machine_publishes(
    node_cluster: NodeCluster,
    installation: Installation,
    laboratory: Path,
    namespace: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    shards = f"--from-file={SEVERAL_SHARDS}"
    node_cluster.kubectl("create", "configmap", "several-shards", shards, "-n", namespace)
    node_cluster.kubectl("apply", "-f", "-", "-n", namespace, stdin=cluster_spec(**IN_THE_CLUSTER))
    store = Store.open(STORE)

    # In the middle of training a spot node goes, and the controller's node too.
    def states() -> set[str]:
        files = [file.path for file in store.list("stages/rl") if file.path.endswith("/committed.json")]
        return {path.split("/")[2] for path in files if "/resume/" in path}

    installation.wait(states, "a member has a resume state", 400)
    key = min(states())
    victim = next(each for each in pods_of(node_cluster, namespace, "rl") if key in json.dumps(each["spec"]))
    evict(node_cluster, namespace, victim["metadata"]["name"])
    node_cluster.kubectl("delete", "pod", "-n", SYSTEM, "--all", "--grace-period=0", "--force")

    following = command(node_cluster, namespace, "logs", "small", "evaluate/2", "--follow")
    followed = subprocess.Popen(following, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    request.addfinalizer(lambda: (followed.kill(), followed.communicate()))
    installation.wait(lambda: is_true(node_cluster, namespace, "Succeeded"), "Succeeded", 1200)
    grown, problem = followed.communicate(timeout=300)
    assert followed.returncode == 0, problem
    assert "published" in grown, grown + problem

    path = os.pathsep.join((str(SEVERAL_SHARDS.parent), os.environ.get("PYTHONPATH", ""))).rstrip(os.pathsep)
    alone = SmallRun(tmp_path / "alone", laboratory, changes=CHANGES, environment={"PYTHONPATH": path})
    local = alone.start()
    request.addfinalizer(lambda: (local.kill(), local.wait()))
    assert local.wait(600) == 0, alone.log()
    here, there = contents(STORE), alone.digests()
    assert {key: value for key, value in here.items() if not key.startswith("import/")} == {
        key: value for key, value in there.items() if not key.startswith("import/")
    }
    # An import's key has its address, which differs; what was imported does not.
    assert sorted(here.values()) == sorted(there.values())

    jobs = json.loads(node_cluster.kubectl("get", "jobs", "-n", namespace, "-o", "json"))["items"]
    attempts = Counter(each["metadata"]["annotations"][names.STAGE_KEY] for each in jobs)
    merges = see_merges_of_two_pods(jobs, store)
    assert {stage: count for stage, count in attempts.items() if count > 1} == {key: 2, merges["merge/1"]: 2}
    second = next(
        each["metadata"]
        for each in jobs
        if each["metadata"]["name"].startswith(f"rl-{key[:12]}") and each["metadata"]["name"].endswith("-a2")
    )
    said = node_cluster.kubectl("logs", f"job/{second['name']}", "-n", namespace)
    assert re.search(r" resumed .* step=\d+$", said, re.MULTILINE), said
    status = warp_run(node_cluster, namespace)["status"]
    assert (status["retries"], status["stagesText"], status["iterationText"]) == (2, "12/12", "2/2")
    _, row = node_cluster.kubectl("get", "warpruns", "-n", namespace).splitlines()
    assert row.split()[:4] == ["small", "Succeeded", "2/2", "12/12"]
    assert status["best"]["kl"] in row
    see_what_is_left(node_cluster, namespace, tmp_path, twice=second["annotations"][names.STAGE_ID])


def see_merges_of_two_pods(jobs: list[dict[str, Any]], store: Store) -> dict[str, str]:
    """Keys by stage id. Both pods of a merge wrote shards of their own; the second pod of merge/1 was lost after its first one."""
    keys, ended = {}, {}
    for job in jobs:
        notes, spec, status = job["metadata"]["annotations"], job["spec"], job["status"]
        if notes[names.STAGE_ID] not in ("merge/1", "merge/2"):
            continue
        assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
        number = int(job["metadata"]["labels"][names.ATTEMPT])
        keys[notes[names.STAGE_ID]] = notes[names.STAGE_KEY]
        (last,) = (each for each in status["conditions"] if each["type"] in ("Complete", "Failed"))
        ended[notes[names.STAGE_ID], number] = (last["type"], status.get("completedIndexes", ""), last["reason"])
    failed = ended.pop(("merge/1", 1))
    assert (failed[0], failed[2]) == ("Failed", "PodFailurePolicy")
    complete = ("Complete", "0,1", "CompletionsReached")
    assert ended == {("merge/1", 2): complete, ("merge/2", 1): complete}

    for stage, key in keys.items():
        manifest = json.loads(store.read(f"stages/merge/{key}/committed.json"))
        shards = [each for each in manifest["files"] if "/model-" in each["name"]]
        writers = {each["name"]: writer_of(each["path"]) for each in shards}
        assert {index for _, index in writers.values()} == {0, 1}
        assert all(index == (int(name.split("-")[-3]) - 1) % 2 for name, (_, index) in writers.items())
        of_second_pod = {number for number, index in writers.values() if index == 1}
        assert of_second_pod == ({1, 2} if stage == "merge/1" else {1}), (
            "what a lost pod had finished is kept, the rest made anew"
        )
    return keys


def writer_of(path: str) -> tuple[int, int]:
    """Number of the attempt, and index of the pod, that wrote a file."""
    attempt = re.search(r"/attempts/(\d+)-[0-9a-f-]{36}-(\d+)-[0-9a-f-]{36}/", path)
    assert attempt is not None, path
    return int(attempt[1]), int(attempt[2])


def command(cluster: NodeCluster, namespace: str, *arguments: str) -> list[str]:
    """A command as a user types it."""
    options = ["--namespace", namespace, "--kubeconfig", str(cluster.kubeconfig)]
    return [sys.executable, "-m", "warpctl", *arguments, *options]


def see_what_is_left(cluster: NodeCluster, namespace: str, folder: Path, *, twice: str) -> None:
    """The commands that look at a run: logs from pods and, once these are gone, from the store; the report; a point as a model.

    Stage `twice` has had two attempts; the pod of its first went with its node.
    """

    def said(*arguments: str) -> str:
        typed = command(cluster, namespace, *arguments)
        done = subprocess.run(typed, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, f"{arguments}\n{done.stderr}"
        return done.stdout

    follow_the_readme(cluster, namespace, folder)
    from_pod = said("logs", "small", "evaluate/1")
    assert "started run=" in from_pod
    assert said("logs", "small", "evaluate/1", "--follow") == from_pod
    of_two = said("logs", "small", "merge/2").splitlines()
    assert {line.split(" | ")[0] for line in of_two} == {"merge/2#0", "merge/2#1"}
    assert any(" published " in line for line in of_two)
    everything = said("logs", "small")
    assert {"import/sft", "rl/1/1", "evaluate/2"} <= {line.split(" | ")[0] for line in everything.splitlines()}
    assert re.search(r" resumed .* step=\d+$", said("logs", "small", twice, "--attempt", "2"), re.MULTILINE)
    evicted = said("logs", "small", twice, "--previous")
    assert "started run=" in evicted
    assert " resumed " not in evicted
    cluster.kubectl("delete", "jobs", "--all", "-n", namespace, "--cascade=foreground")
    assert from_pod.splitlines()[0] in said("logs", "small", "evaluate/1")
    report = said("report", "small")
    assert f"report: {STORE}/runs/{namespace}/small/report/report.html" in report
    assert "Succeeded" in said("status", "small")
    model = folder / "model"
    said("export", "small", "--liti-rate", "0.5", "--to", str(model))
    assert (model / "model.safetensors").exists()


def follow_the_readme(cluster: NodeCluster, namespace: str, folder: Path) -> None:
    """The commands of its section on clusters, for a run that is there; the installation has been done before."""
    block = re.search(r"```shell\n(.*?)```", (TOP / "README.md").read_text(), re.DOTALL)
    assert block is not None
    commands = [line.split("  #")[0].strip() for line in block[1].splitlines()]
    assert commands.pop(0) == "kubectl apply --server-side -k manifests/overlays/cluster"
    (folder / "runs").mkdir()
    (folder / "runs" / "demo.yaml").write_text(cluster_spec(**IN_THE_CLUSTER))
    programs = folder / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(binaries.KUBECTL.path())
    kubeconfig = json.loads(cluster.kubeconfig.read_text())
    kubeconfig["contexts"][0]["context"]["namespace"] = namespace
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
    path = os.pathsep.join((str(programs), str(Path(sys.executable).parent), os.environ["PATH"]))
    for line in commands:
        done = subprocess.run(
            line.replace(" demo", " small"),
            shell=True,
            cwd=folder,
            env=os.environ | {"PATH": path, "KUBECONFIG": str(folder / "kubeconfig"), "HOME": str(folder)},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert done.stdout


SUM = """
import getpass, torch, torch.distributed as group
assert getpass.getuser() == "warpctl"
group.init_process_group("gloo")
value = torch.tensor([group.get_rank() + 1.0])
group.all_reduce(value)
print(f"rank {group.get_rank()} of {group.get_world_size()}: {value.item()}", flush=True)
group.destroy_process_group()
"""


def test_two_pods_of_a_rendered_stage_meet_by_torchrun(
    node_cluster: NodeCluster, installation: Installation, namespace: str
) -> None:
    """PET_* and the headless Service of a stage with two nodes are what torchrun needs: it computes a sum over both pods."""
    spec = json.loads(cluster_spec(compute={"rl": {"nodes": 2, "cpu": "100m", "memory": "2Gi"}}))
    run = WarpRun.model_validate(spec | {"metadata": {"name": "small", "namespace": namespace}})
    start = starts(run)["rl/1/1"]
    config = ControllerConfig.model_validate(installation.config)
    job = render_job(run, start, storage=STORE, uid=UID, config=config)
    del job["metadata"]["ownerReferences"]
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["command"] = ["torchrun", "--no-python", "python", "-P", "-c", SUM]
    service = render_service(namespace, job_name=job["metadata"]["name"], job_uid=UID, labels={})
    del service["metadata"]["ownerReferences"]
    for each in (service, job):
        node_cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(each))

    installation.wait(
        lambda: any(
            pod["status"]["phase"] in ("Succeeded", "Failed") for pod in pods_of(node_cluster, namespace, "rl")
        ),
        "the sum",
        300,
    )

    name = job["metadata"]["name"]
    node_cluster.kubectl("wait", "--for=condition=Complete", f"job/{name}", "-n", namespace, "--timeout=60s")
    said = node_cluster.kubectl("logs", "-n", namespace, "-l", f"{names.JOB_NAME_LABEL}={name}", "--tail=20")
    assert sorted(line for line in said.splitlines() if line.startswith("rank")) == [
        "rank 0 of 2: 3.0",
        "rank 1 of 2: 3.0",
    ]


def test_an_import_that_needs_more_memory_than_it_has_says_so(
    node_cluster: NodeCluster, installation: Installation, laboratory: Path, namespace: str
) -> None:
    small = {"import": {"memory": "24Mi", "cpu": "100m"}}
    text = cluster_spec(f"gs://{BUCKET}/hungry", compute=small, retry={"backoffSeconds": 0, "infrastructureLimit": 1})
    node_cluster.kubectl("apply", "-f", "-", "-n", namespace, stdin=text)

    installation.wait(lambda: is_true(node_cluster, namespace, "Stalled"), "Stalled", 180)

    message = condition(warp_run(node_cluster, namespace), "Stalled")["message"]
    assert "out of memory: its container was killed (raise spec.compute.import.memory)" in message


def test_a_worker_that_fails_is_quoted_with_its_last_words(
    node_cluster: NodeCluster, installation: Installation, laboratory: Path, namespace: str
) -> None:
    """The kubelet keeps the end of its log, and the condition says it."""
    spec = json.loads(cluster_spec(f"gs://{BUCKET}/wordy"))
    spec["spec"]["models"]["sft"]["uri"] = f"gs://{BUCKET}/nowhere"
    node_cluster.kubectl("apply", "-f", "-", "-n", namespace, stdin=json.dumps(spec))

    installation.wait(lambda: is_true(node_cluster, namespace, "Stalled"), "Stalled", 180)

    message = condition(warp_run(node_cluster, namespace), "Stalled")["message"]
    assert message.startswith("import/sft: attempt 1 cannot succeed: exit code 42: "), message
    assert f"gs://{BUCKET}/nowhere" in message


def test_an_image_that_is_not_there_is_named_within_a_minute(
    node_cluster: NodeCluster, installation: Installation, laboratory: Path, namespace: str
) -> None:
    absent = f"{installation.config['images']['slim'].rpartition(':')[0]}:absent"
    config = {**installation.config, "tenancy": [{"storage": [f"gs://{BUCKET}/"], "images": [absent]}]}
    allowing = Installation(node_cluster, installation.folder, config)
    allowing.apply()
    text = cluster_spec(f"gs://{BUCKET}/imageless", compute={"import": {"podTemplate": {"image": absent}}})
    node_cluster.kubectl("apply", "-f", "-", "-n", namespace, stdin=text)

    def said() -> str:
        return str(condition(warp_run(node_cluster, namespace), "Ready").get("message", ""))

    installation.wait(lambda: "absent" in said(), "the image is named", 60)
    assert condition(warp_run(node_cluster, namespace), "Ready")["reason"] == "Waiting"
