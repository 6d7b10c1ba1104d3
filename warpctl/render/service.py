"""The headless Service by which the pods of one attempt find each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warpctl import names
from warpctl.render.metadata import owned_by_job
from warpctl.render.pod import PORT


def render_service(namespace: str, *, job_name: str, job_uid: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """The Service of a Job with several nodes; `labels` are the Job's."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.service(job_name),
            "namespace": namespace,
            "labels": dict(labels),
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
