"""The headless Service by which the pods of one attempt find each other."""

from __future__ import annotations

from typing import Any

from warpctl import names
from warpctl.plan.actions import Start
from warpctl.render.metadata import labels, owned_by_job
from warpctl.render.pod import PORT
from warpctl.spec.warp_run import WarpRun


def render_service(run: WarpRun, start: Start, *, job_name: str, job_uid: str) -> dict[str, Any] | None:
    """The Service of a Job with several nodes, None where one node needs none."""
    if run.spec.compute.of(start.stage.kind).nodes == 1:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.service(job_name),
            "namespace": run.metadata.namespace,
            "labels": labels(run, start),
            "ownerReferences": owned_by_job(job_name, job_uid),
        },
        "spec": {
            "clusterIP": "None",
            # The pods find each other before they are ready, so that they can become so.
            "publishNotReadyAddresses": True,
            "selector": {names.JOB_NAME_LABEL: job_name},
            "ports": [{"name": "rendezvous", "port": PORT}],
        },
    }
