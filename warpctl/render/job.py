"""One attempt of a stage as a Job: it succeeds or fails once, and the planner decides what comes next."""

from __future__ import annotations

from typing import Any, Final

from warpctl import names
from warpctl.plan.actions import Start
from warpctl.render.failure_policy import CONTAINER, pod_failure_policy
from warpctl.render.metadata import labels, notes, owned_by_run, queue_labels
from warpctl.render.pod import ATTEMPT_REFERENCES, pod_spec
from warpctl.render.stage_input import stage_input
from warpctl.spec.compute import memory_bytes, num_cores
from warpctl.spec.controller_config import ControllerConfig
from warpctl.spec.stage_input import Resources
from warpctl.spec.warp_run import WarpRun

DEFAULT_CONTAINER: Final = {"kubectl.kubernetes.io/default-container": CONTAINER}
"""What `kubectl logs` shows where a mesh has added containers."""


def render_job(run: WarpRun, start: Start, *, storage: str, uid: str, config: ControllerConfig) -> dict[str, Any]:
    """The Job of this attempt; `storage` is the store's root URI, `uid` the WarpRun's.

    FinalError when the StageInput does not fit into its environment variable (32 KiB).
    """
    compute = run.spec.compute.of(start.stage.kind)
    name = names.job(start.stage.kind, start.stage.key, storage, start.number)
    told = stage_input(
        run,
        start,
        attempt_id="",
        storage=storage,
        resources=Resources(
            gpus=compute.gpus, threads=num_cores(compute, config.defaults.cpu), memory_bytes=memory_bytes(compute)
        ),
    )
    attempt_id = "-".join((str(start.number), *ATTEMPT_REFERENCES))
    # The kubelet expands $(NAME) in values; a spec's own text may hold a dollar sign, which is doubled.
    text = told.to_json().replace("$", "$$").replace('"attemptId":""', f'"attemptId":"{attempt_id}"')
    own = labels(run, start)
    queue = queue_labels(run)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": run.metadata.namespace,
            "labels": own | queue,
            "annotations": notes(start, storage, compute.gpus * compute.nodes),
            "ownerReferences": owned_by_run(run, uid),
        },
        "spec": {
            "backoffLimit": 0,
            "completionMode": "Indexed",
            "completions": compute.nodes,
            "parallelism": compute.nodes,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": pod_failure_policy(),
            "template": {
                "metadata": {"labels": own, "annotations": {**DEFAULT_CONTAINER, **compute.pod_template.annotations}},
                "spec": pod_spec(start, compute, told=text, job_name=name, config=config),
            },
        },
    }


def expiry(config: ControllerConfig) -> dict[str, Any]:
    """Patch of a Job that succeeded: it goes some time from now. One that failed is a fact that its run still counts."""
    return {"spec": {"ttlSecondsAfterFinished": config.defaults.ttl_seconds}}
