"""One attempt as a Job: what must hold of every one of them, and what a spec and a configuration change."""

from __future__ import annotations

import json
import re

import pytest
from pydantic import ValidationError

from tests.builders.starts import UID, starts
from tests.builders.world import a_run
from warpctl import names
from warpctl.errors import FinalError
from warpctl.render.job import expiry, render_job
from warpctl.spec.controller_config import ControllerConfig
from warpctl.spec.stage_input import ENVIRONMENT_VARIABLE, MAX_BYTES, StageInput, StageKind

STORAGE = "gs://bucket/warp"
FIRST = {
    StageKind.IMPORT: "import/sft",
    StageKind.RL: "rl/1/1",
    StageKind.MERGE: "merge/1",
    StageKind.EVALUATE: "evaluate/1",
    StageKind.REPORT: "report/1",
}


def job_of(stage_id="rl/1/1", *, run=None, number=1, config=None, storage=STORAGE):
    run = run or a_run()
    start = starts(run, number=number)[stage_id]
    return render_job(run, start, storage=storage, uid=UID, config=config or ControllerConfig())


def with_compute(kind="rl", **compute):
    return a_run(compute={kind: compute})


def with_template(kind="rl", **template):
    return a_run(compute={kind: {"podTemplate": template}})


def config(**defaults):
    return ControllerConfig.model_validate({"defaults": defaults})


def pod_of(job):
    return job["spec"]["template"]["spec"]


def container_of(job):
    (container,) = pod_of(job)["containers"]
    return container


def env_of(job):
    """Environment by name; each name stands there once."""
    entries = container_of(job)["env"]
    assert len({each["name"] for each in entries}) == len(entries)
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in entries}


def as_the_kubelet_fills_in(job, **values):
    """The StageInput that the worker reads: $(NAME) replaced, $$ made $ (kubernetes' expansion)."""
    references = {"WARPCTL_JOB_UID": "job-uid", "WARPCTL_POD_INDEX": "0", "WARPCTL_POD_UID": "pod-uid", **values}
    text = env_of(job)[ENVIRONMENT_VARIABLE]
    filled = re.sub(r"\$\$|\$\((\w+)\)", lambda found: references[found[1]] if found[1] else "$", text)
    return StageInput.from_environment({ENVIRONMENT_VARIABLE: filled})


@pytest.mark.parametrize("stage_id", FIRST.values())
def test_a_job_is_one_attempt_whose_pods_are_never_replaced_or_doubled(stage_id):
    spec = job_of(stage_id)["spec"]
    assert (spec["backoffLimit"], spec["completionMode"], spec["podReplacementPolicy"]) == (0, "Indexed", "Failed")
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "ttlSecondsAfterFinished" not in spec, "a failed Job is a fact that its run counts"
    assert "suspend" not in spec, "that is Kueue's"
    assert "activeDeadlineSeconds" not in spec


def test_its_name_is_kind_key_store_and_attempt():
    job = job_of(number=3)
    key = job["metadata"]["annotations"][names.STAGE_KEY]
    assert re.fullmatch(rf"rl-{key[:12]}-[0-9a-f]{{4}}-a3", job["metadata"]["name"])
    assert job_of(number=3)["metadata"]["name"] == job["metadata"]["name"]
    assert job_of(number=3, storage="gs://other")["metadata"]["name"] != job["metadata"]["name"]


def test_the_longest_names_fit_a_pods_host_name():
    for stage_id in FIRST.values():
        name = job_of(stage_id, number=10_200)["metadata"]["name"]
        assert len(f"{name}-255") <= 63


def test_the_run_owns_it_as_its_controller():
    job = job_of(run=a_run(name="demo"))
    assert job["metadata"]["ownerReferences"] == [
        {"apiVersion": "warpctl.dev/v1alpha1", "kind": "WarpRun", "name": "demo", "uid": UID, "controller": True}
    ]
    assert job["metadata"]["namespace"] == "default"


def test_labels_say_run_iteration_member_and_kind_on_job_and_pods_alike():
    job = job_of("rl/2/1", run=a_run(name="demo"), number=2)
    labels = job["metadata"]["labels"]
    assert labels["app.kubernetes.io/managed-by"] == "warpctl"
    assert labels["warpctl.dev/run"] == "demo"
    assert labels["warpctl.dev/stage-kind"] == "rl"
    assert (labels["warpctl.dev/iteration"], labels["warpctl.dev/member"], labels["warpctl.dev/attempt"]) == (
        "2",
        "1",
        "2",
    )
    assert job["spec"]["template"]["metadata"]["labels"] == labels


def test_a_controls_stage_says_which_one_it_is():
    labels = job_of("control/SftAnchor/rl", run=a_run(controls=["SftAnchor"]))["metadata"]["labels"]
    assert labels["warpctl.dev/control"] == "SftAnchor"
    assert "warpctl.dev/iteration" not in labels


def test_of_a_runs_own_labels_only_kueues_are_copied_and_only_to_the_job():
    run = a_run()
    tracked = {
        "kueue.x-k8s.io/queue-name": "gpus",
        "kueue.x-k8s.io/priority-class": "high",
        "argocd.argoproj.io/instance": "app",
        "kustomize.toolkit.fluxcd.io/name": "app",
    }
    run = run.model_copy(update={"metadata": run.metadata.model_copy(update={"labels": tracked})})
    job = job_of(run=run)
    copied = {name: value for name, value in job["metadata"]["labels"].items() if name in tracked}
    assert copied == {"kueue.x-k8s.io/queue-name": "gpus", "kueue.x-k8s.io/priority-class": "high"}
    assert not set(tracked) & set(job["spec"]["template"]["metadata"]["labels"])


@pytest.mark.parametrize("stage_id", FIRST.values())
def test_every_pod_is_restricted(stage_id):
    pod, container = pod_of(job_of(stage_id)), container_of(job_of(stage_id))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)


def test_worker_pods_run_as_the_configured_user_or_as_the_platform_says():
    users = ("runAsUser", "runAsGroup", "fsGroup")
    assert [pod_of(job_of())["securityContext"][each] for each in users] == [10001] * 3
    assert [pod_of(job_of(config=config(runAsUser=1234)))["securityContext"][each] for each in users] == [1234] * 3
    assigned = pod_of(job_of(config=config(runAsUser="FromImage")))["securityContext"]
    assert assigned == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_nobody_configures_workers_to_be_root():
    with pytest.raises(ValidationError, match="runAsUser"):
        config(runAsUser=0)


def test_scratch_and_shared_memory_are_all_that_can_be_written_and_everything_goes_there():
    job = job_of(config=config(scratch="7Gi", sharedMemory="2Gi"))
    mounts = {each["mountPath"]: each["name"] for each in container_of(job)["volumeMounts"]}
    volumes = {each["name"]: each["emptyDir"] for each in pod_of(job)["volumes"]}
    assert volumes[mounts["/tmp"]] == {"sizeLimit": "7Gi"}
    assert volumes[mounts["/dev/shm"]] == {"medium": "Memory", "sizeLimit": "2Gi"}
    environment = env_of(job)
    assert (environment["HOME"], environment["TMPDIR"]) == ("/tmp", "/tmp")
    assert "NUMBA_CACHE_DIR" not in environment  # it would hide the kernels that the image has


def test_a_pod_has_no_token_unless_it_has_an_identity():
    assert pod_of(job_of())["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod_of(job_of())
    for job in (job_of(config=config(serviceAccount="gcs")), job_of(run=with_template(serviceAccountName="gcs"))):
        assert pod_of(job)["serviceAccountName"] == "gcs"
        assert pod_of(job)["automountServiceAccountToken"] is True


def test_only_rl_and_evaluations_need_the_large_image_unless_a_spec_names_its_own():
    images = ControllerConfig.model_validate({"images": {"slim": "x/slim", "worker": "x/worker"}})
    used = {kind: container_of(job_of(stage_id, config=images))["image"] for kind, stage_id in FIRST.items()}
    assert used == {
        StageKind.IMPORT: "x/slim",
        StageKind.RL: "x/worker",
        StageKind.MERGE: "x/slim",
        StageKind.EVALUATE: "x/worker",
        StageKind.REPORT: "x/slim",
    }
    assert container_of(job_of(run=with_template(image="own"), config=images))["image"] == "own"


@pytest.mark.parametrize(("kind", "stage_id"), FIRST.items())
def test_each_kind_runs_its_worker_and_no_file_beside_it(kind, stage_id):
    module = {"import": "import_"}.get(kind, str(kind))
    assert container_of(job_of(stage_id))["command"] == ["python", "-P", "-m", f"warpctl.workers.{module}"]


def test_only_an_import_sees_the_hub_token_and_the_hub():
    with_token = config(hubTokenSecret="hub", envFromSecrets=["store"])
    seen = {}
    for kind, stage_id in FIRST.items():
        job = job_of(stage_id, config=with_token)
        secrets = [each["secretRef"]["name"] for each in container_of(job)["envFrom"]]
        seen[kind] = ("hub" in secrets, env_of(job).get("HF_TOKEN"), env_of(job).get("HF_HUB_OFFLINE"))
        assert "store" in secrets
    assert seen.pop(StageKind.IMPORT) == (True, None, None)
    assert set(seen.values()) == {(False, "", "1")}


def test_a_spec_cannot_give_a_hub_token_to_training():
    run = with_template(env=[{"name": "HF_TOKEN", "secretKeyRef": {"name": "hub", "key": "token"}}])
    assert env_of(job_of(run=run))["HF_TOKEN"] == ""
    run = with_template("import", env=[{"name": "HF_TOKEN", "secretKeyRef": {"name": "hub", "key": "token"}}])
    assert env_of(job_of("import/sft", run=run))["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}


def test_a_variable_of_the_spec_wins_over_the_configurations_and_is_taken_literally():
    run = with_template(env=[{"name": "OMP_NUM_THREADS", "value": "3"}, {"name": "PASSWORD", "value": "$(HOME)$"}])
    environment = env_of(job_of(run=run, config=config(environment={"OMP_NUM_THREADS": "5", "ZONE": "a"})))
    assert (environment["OMP_NUM_THREADS"], environment["ZONE"]) == ("3", "a")
    assert environment["PASSWORD"] == "$$(HOME)$$"


def test_the_worker_is_told_its_stage_and_a_name_that_no_other_process_has():
    job = job_of(number=2)
    told = as_the_kubelet_fills_in(job)
    assert told.attempt_id == names.attempt_id(2, "job-uid", 0, "pod-uid")
    assert (told.stage_id, told.storage, told.run) == ("rl/1/1", STORAGE, "demo")
    assert told.key == job["metadata"]["annotations"][names.STAGE_KEY]
    order = [each["name"] for each in container_of(job)["env"]]
    for name in ("WARPCTL_JOB_UID", "WARPCTL_POD_INDEX", "WARPCTL_POD_UID"):
        assert order.index(name) < order.index(ENVIRONMENT_VARIABLE), "only what stands before it is filled in"
        assert "fieldRef" in env_of(job)[name]


def test_a_dollar_sign_of_the_spec_reaches_the_worker_as_it_is_and_reads_no_variable():
    run = a_run(models={
        "sft": {"uri": "gs://b/$(WARPCTL_POD_UID)/$$x"},
        "rewards": [{"type": "Checkpoint", "name": "q", "uri": "gs://b/r"}],
    })  # fmt: skip
    told = as_the_kubelet_fills_in(job_of("import/sft", run=run))
    assert told.task.uri == "gs://b/$(WARPCTL_POD_UID)/$$x"


def test_what_does_not_fit_into_the_variable_is_said_with_its_size():
    def run_with(num_rewards):
        reward = {"type": "Checkpoint", "uri": "gs://b/" + "x" * 1000}
        groups = {
            group: [{**reward, "name": f"{group[0]}{number}"} for number in range(num_rewards)]
            for group in ("rewards", "heldOutRewards")
        }
        return a_run(models={"sft": {"uri": "gs://b/sft"}, **groups}, rlRuns=64)

    told = env_of(job_of("evaluate/1", run=run_with(1)))[ENVIRONMENT_VARIABLE]
    assert MAX_BYTES / 2 < len(told.encode()) <= MAX_BYTES
    with pytest.raises(FinalError, match=r"stage evaluate/1: its input is \d+ bytes, the limit is 32768") as caught:
        job_of("evaluate/1", run=run_with(8))
    assert caught.value.hint


def test_resources_are_what_the_spec_says_and_else_the_configurations():
    job = job_of(run=with_compute(gpus=8, cpu="64", memory="512Gi", scratch="300Gi", sharedMemory="64Gi"))
    bounded = {"memory": "512Gi", "ephemeral-storage": "300Gi", "nvidia.com/gpu": "8"}
    assert container_of(job)["resources"] == {"requests": {"cpu": "64", **bounded}, "limits": bounded}
    sizes = [each["emptyDir"]["sizeLimit"] for each in pod_of(job)["volumes"]]
    assert sizes == ["300Gi", "64Gi"]
    assert as_the_kubelet_fills_in(job).resources.threads == 64
    assert as_the_kubelet_fills_in(job).resources.gpus == 8

    job = job_of(config=config(cpu="1500m", memory="3Gi", gpuResource="amd.com/gpu"))
    assert container_of(job)["resources"] == {
        "requests": {"cpu": "1500m", "memory": "3Gi"},
        "limits": {"memory": "3Gi"},
    }
    assert (as_the_kubelet_fills_in(job).resources.threads, env_of(job)["OMP_NUM_THREADS"]) == (2, "2")


def test_an_rl_run_has_time_to_save_what_fits_its_memory():
    rate = config(graceSeconds=60, saveRate="100Mi")
    assert pod_of(job_of(run=with_compute(memory="10Gi"), config=rate))["terminationGracePeriodSeconds"] == 103
    assert pod_of(job_of(run=with_compute(memory="1Gi"), config=rate))["terminationGracePeriodSeconds"] == 60
    assert pod_of(job_of(run=with_compute(memory="100Ti"), config=rate))["terminationGracePeriodSeconds"] == 86_400
    merging = with_compute("merge", memory="10Gi")
    assert pod_of(job_of("merge/1", run=merging, config=rate))["terminationGracePeriodSeconds"] == 60


def test_placement_is_passed_on():
    run = with_template(
        nodeSelector={"gpu": "h100"},
        tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        priorityClassName="high",
        runtimeClassName="nvidia",
        imagePullSecrets=["registry"],
        envFromSecrets=["extra"],
        annotations={"note": "x"},
        affinity={
            "node": {"required": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]},
            "podAnti": {"preferred": [{"weight": 5, "matchLabels": {"a": "b"}, "topologyKey": "host"}]},
        },
    )
    job = job_of(run=run, config=ControllerConfig.model_validate({"images": {"pullSecrets": ["cluster", "registry"]}}))
    pod = pod_of(job)
    assert pod["nodeSelector"] == {"gpu": "h100"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert (pod["priorityClassName"], pod["runtimeClassName"]) == ("high", "nvidia")
    assert pod["imagePullSecrets"] == [{"name": "cluster"}, {"name": "registry"}]
    assert container_of(job)["envFrom"] == [{"secretRef": {"name": "extra"}}]
    assert job["spec"]["template"]["metadata"]["annotations"]["note"] == "x"
    assert pod["affinity"] == {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
            }
        },
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 5,
                    "podAffinityTerm": {"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "host"},
                }
            ]
        },
    }


def test_a_specs_volumes_cannot_meet_the_pods_own():
    run = with_template(
        volumes=[
            {"name": "scratch", "type": "persistentVolumeClaim", "sourceName": "data", "mountPath": "/data"},
            {"name": "plug-in", "type": "configMap", "sourceName": "code", "mountPath": "/code", "readOnly": True},
            {"name": "key", "type": "secret", "sourceName": "key", "mountPath": "/key"},
            {"name": "more", "type": "emptyDir", "sizeLimit": "1Gi", "mountPath": "/more"},
        ]
    )
    pod = pod_of(job_of(run=run))
    assert len({each["name"] for each in pod["volumes"]}) == len(pod["volumes"]) == 6
    volumes = {each["name"]: each for each in pod["volumes"]}
    mounts = {each["mountPath"]: each for each in container_of(job_of(run=run))["volumeMounts"]}
    assert volumes[mounts["/data"]["name"]]["persistentVolumeClaim"]["claimName"] == "data"
    assert volumes[mounts["/code"]["name"]]["configMap"] == {"name": "code"}
    assert volumes[mounts["/key"]["name"]]["secret"] == {"secretName": "key"}
    assert volumes[mounts["/more"]["name"]]["emptyDir"] == {"sizeLimit": "1Gi"}
    assert mounts["/code"]["readOnly"] is True


def test_several_nodes_are_told_how_to_meet():
    job = job_of(run=with_compute(nodes=4, gpus=8))
    name = job["metadata"]["name"]
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (4, 4)
    assert job["metadata"]["annotations"][names.GPUS] == "32"
    assert pod_of(job)["subdomain"] == names.service(name)
    environment = env_of(job)
    assert (environment["PET_NNODES"], environment["PET_NPROC_PER_NODE"]) == ("4", "8")
    assert environment["PET_NODE_RANK"] == "$(WARPCTL_POD_INDEX)"
    assert environment["PET_MASTER_ADDR"] == f"{name}-0.{names.service(name)}"
    assert environment["PET_RDZV_ENDPOINT"] == f"{name}-0.{names.service(name)}:{environment['PET_MASTER_PORT']}"


def test_the_nodes_of_a_merge_are_told_which_they_are_and_all_of_them_end():
    job = job_of("merge/1", run=with_compute("merge", nodes=3))
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert "successPolicy" not in spec, (
        "a pod that has published ends no other: each may still leave what it has finished"
    )
    assert env_of(job)["PET_NNODES"] == "3"
    assert env_of(job)["PET_NODE_RANK"] == "$(WARPCTL_POD_INDEX)"
    ids = {as_the_kubelet_fills_in(job, WARPCTL_POD_INDEX=index).attempt_id for index in "012"}
    assert len(ids) == 3


def test_one_node_needs_no_meeting():
    job = job_of(run=with_compute(nodes=1, gpus=8))
    assert not [name for name in env_of(job) if name.startswith("PET_")]
    assert "subdomain" not in pod_of(job)


def test_a_failing_container_leaves_its_last_words():
    assert container_of(job_of())["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_a_job_that_succeeded_goes_some_day():
    assert expiry(config(ttlSeconds=3600)) == {"spec": {"ttlSecondsAfterFinished": 3600}}


def plain_types(value):
    if isinstance(value, dict):
        return {type(value)} | {kind for each in value.values() for kind in plain_types(each)}
    if isinstance(value, list):
        return {type(value)} | {kind for each in value for kind in plain_types(each)}
    return {type(value)}


def test_a_job_is_plain_data():
    job = job_of("control/SftAnchor/rl", run=a_run(controls=["SftAnchor"], compute={"rl": {"nodes": 2}}))
    assert plain_types(job) == {dict, list, str, int, bool}
    assert json.loads(json.dumps(job)) == job
