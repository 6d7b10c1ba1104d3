"""The pod of a worker: restricted Pod Security, a read-only root, and nothing to write but the store and scratch."""

from __future__ import annotations

import math
from typing import Any, Final

from warpctl import names
from warpctl.plan.actions import Start
from warpctl.render.failure_policy import CONTAINER
from warpctl.spec.compute import StageCompute, num_cores
from warpctl.spec.controller_config import FROM_IMAGE, ControllerConfig, Defaults
from warpctl.spec.quantity import amount
from warpctl.spec.stage_input import ENVIRONMENT_VARIABLE, StageKind

SLIM_KINDS = frozenset({StageKind.IMPORT, StageKind.MERGE, StageKind.REPORT})
"""Stages that need no torch."""
MODULES = {
    StageKind.IMPORT: "warpctl.workers.import_",
    StageKind.RL: "warpctl.workers.rl",
    StageKind.MERGE: "warpctl.workers.merge",
    StageKind.EVALUATE: "warpctl.workers.evaluate",
    StageKind.REPORT: "warpctl.workers.report",
}
PORT: Final = 29500
"""torchrun's own default."""
MAX_GRACE_SECONDS: Final = 86_400
HUB_TOKENS: Final = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""For import pods alone."""
OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""Everything that other pods need is in the store."""
JOB_UID, POD_UID, INDEX = "WARPCTL_JOB_UID", "WARPCTL_POD_UID", "WARPCTL_POD_INDEX"
ATTEMPT_REFERENCES = (f"$({JOB_UID})", f"$({INDEX})", f"$({POD_UID})")
"""Filled in by the kubelet: an attempt id names the process that writes, and nobody knows that one before it starts."""


def pod_spec(
    start: Start, compute: StageCompute, *, told: str, job_name: str, config: ControllerConfig
) -> dict[str, Any]:
    """Spec of the pods of one attempt; `told` is the StageInput as JSON."""
    template, defaults = compute.pod_template, config.defaults
    account = template.service_account_name or defaults.service_account
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _grace_seconds(start.stage.kind, compute, defaults),
        # Only workload identity needs a token: a worker never speaks to the API server.
        "automountServiceAccountToken": bool(account),
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            **_user(defaults),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(start, compute, told, job_name, config)],
        "volumes": [
            {"name": "scratch", "emptyDir": {"sizeLimit": compute.scratch or defaults.scratch}},
            {
                "name": "shared-memory",
                "emptyDir": {"medium": "Memory", "sizeLimit": compute.shared_memory or defaults.shared_memory},
            },
            *({"name": _volume_name(volume.name), **volume.source()} for volume in template.volumes),
        ],
    }
    pull_secrets = [*config.images.pull_secrets, *template.image_pull_secrets]
    optional = {
        "serviceAccountName": account,
        "priorityClassName": template.priority_class_name,
        "runtimeClassName": template.runtime_class_name,
        "nodeSelector": dict(template.node_selector),
        "tolerations": [_toleration(each.model_dump(exclude_defaults=False)) for each in template.tolerations],
        "affinity": template.affinity.as_kubernetes(),
        "imagePullSecrets": [{"name": name} for name in dict.fromkeys(pull_secrets)],
        "subdomain": names.service(job_name) if compute.nodes > 1 else "",
    }
    return spec | {name: value for name, value in optional.items() if value}


def _user(defaults: Defaults) -> dict[str, Any]:
    """Who the processes are. A platform that assigns users of its own (OpenShift) refuses a pod that names another."""
    user = defaults.run_as_user
    return {} if user == FROM_IMAGE else {"runAsUser": user, "runAsGroup": user, "fsGroup": user}


def _container(
    start: Start, compute: StageCompute, told: str, job_name: str, config: ControllerConfig
) -> dict[str, Any]:
    template, defaults, kind = compute.pod_template, config.defaults, start.stage.kind
    image = template.image or (config.images.slim if kind in SLIM_KINDS else config.images.worker)
    secrets = [*defaults.env_from_secrets, *template.env_from_secrets]
    if kind is StageKind.IMPORT and defaults.hub_token_secret:
        secrets.append(defaults.hub_token_secret)
    mounts = [
        {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108  # a volume of the pod's own
        {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108
        *(
            {"name": _volume_name(each.name), "mountPath": each.mount_path, "readOnly": each.read_only}
            for each in template.volumes
        ),
    ]
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": config.images.pull_policy,
        # -P: a file of the working folder must not shadow a library.
        "command": ["python", "-P", "-m", MODULES[kind]],
        "env": _environment(start, compute, told, job_name, defaults),
        **({"envFrom": [{"secretRef": {"name": name}} for name in dict.fromkeys(secrets)]} if secrets else {}),
        "resources": _resources(compute, defaults),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # The last lines of a worker that fails: what the run's status says of it.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def _environment(
    start: Start, compute: StageCompute, told: str, job_name: str, defaults: Defaults
) -> list[dict[str, Any]]:
    kind = start.stage.kind
    threads = str(num_cores(compute, defaults.cpu))
    plain = {
        # Everything but /tmp and /dev/shm is read-only.
        "HOME": "/tmp",  # noqa: S108
        "TMPDIR": "/tmp",  # noqa: S108
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        **defaults.environment,
        **(_rendezvous(start, compute, job_name) if compute.nodes > 1 else {}),
    }
    # A variable by name wins over one of the same name from envFrom, so no Secret brings a token here.
    barred = {} if kind is StageKind.IMPORT else {**dict.fromkeys(HUB_TOKENS, ""), **OFFLINE}
    own = [each.as_kubernetes() for each in compute.pod_template.env if each.name not in barred]
    chosen = {each["name"] for each in own} | set(barred)
    return [
        _field(JOB_UID, f"metadata.labels['{names.JOB_UID_LABEL}']"),
        _field(INDEX, f"metadata.annotations['{names.INDEX_LABEL}']"),
        _field(POD_UID, "metadata.uid"),
        *({"name": name, "value": value} for name, value in plain.items() if name not in chosen),
        *own,
        *({"name": name, "value": value} for name, value in barred.items()),
        {"name": ENVIRONMENT_VARIABLE, "value": told},
    ]


def _rendezvous(start: Start, compute: StageCompute, job_name: str) -> dict[str, str]:
    """torchrun's and accelerate's variables; pods of an Indexed Job are found as <job>-<index>.<service>."""
    first = f"{job_name}-0.{names.service(job_name)}"
    return {
        "PET_NNODES": str(compute.nodes),
        "PET_NODE_RANK": f"$({INDEX})",
        "PET_NPROC_PER_NODE": str(max(1, compute.gpus)),
        "PET_MASTER_ADDR": first,
        "PET_MASTER_PORT": str(PORT),
        "PET_RDZV_BACKEND": "static",
        "PET_RDZV_ENDPOINT": f"{first}:{PORT}",
        "PET_RDZV_ID": f"{start.stage.kind}-{start.stage.key[:12]}-{start.number}",
    }


def _resources(compute: StageCompute, defaults: Defaults) -> dict[str, Any]:
    """Memory, disk and GPUs are limits, so that nobody takes a neighbour's; CPU is a request: a limit would throttle."""
    bounded = {"memory": compute.memory or defaults.memory}
    if compute.scratch:
        bounded["ephemeral-storage"] = compute.scratch
    if compute.gpus:
        bounded[defaults.gpu_resource] = str(compute.gpus)
    return {"requests": {"cpu": compute.cpu or defaults.cpu, **bounded}, "limits": bounded}


def _grace_seconds(kind: StageKind, compute: StageCompute, defaults: Defaults) -> int:
    """From SIGTERM to SIGKILL: an RL run's resume state is at most its node's memory, written at the configured rate."""
    if kind is not StageKind.RL:
        return defaults.grace_seconds
    predicted = math.ceil(amount(compute.memory or defaults.memory) / amount(defaults.save_rate))
    return min(max(defaults.grace_seconds, predicted), MAX_GRACE_SECONDS)


def _volume_name(name: str) -> str:
    """A spec's volumes cannot meet the pod's own."""
    return f"spec-{name}"


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _toleration(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
