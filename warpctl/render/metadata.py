"""Labels, annotations and owners of what a run owns, in one place."""

from __future__ import annotations

from typing import Any

from warpctl import names
from warpctl.plan.actions import Start
from warpctl.spec.warp_run import API_VERSION, WarpRun


def labels(run: WarpRun, start: Start) -> dict[str, str]:
    """Labels of a Job, its pods and its Service."""
    stage = start.stage
    found = {
        names.MANAGED_BY: names.MANAGER,
        names.APP: "warpctl-worker",
        names.INSTANCE: names.label(run.metadata.name),
        names.COMPONENT: str(stage.kind),
        names.RUN: names.label(run.metadata.name),
        names.KIND: str(stage.kind),
        names.ATTEMPT: str(start.number),
    }
    if stage.iteration:
        found[names.ITERATION] = str(stage.iteration)
    if stage.member:
        found[names.MEMBER] = str(stage.member)
    if stage.control:
        found[names.CONTROL] = str(stage.control)
    return found


def queue_labels(run: WarpRun) -> dict[str, str]:
    """Kueue's labels, which a Job gets from its run; no other label is copied."""
    return {name: run.metadata.labels[name] for name in names.COPIED_LABELS if name in run.metadata.labels}


def notes(start: Start, storage: str, gpus: int) -> dict[str, str]:
    """Annotations of a Job: what names its stage and its cost."""
    return {
        names.STAGE_ID: start.stage.id,
        names.STAGE_KEY: start.stage.key,
        names.STORAGE: storage,
        names.GPUS: str(gpus),
    }


def owned_by_run(run: WarpRun, uid: str) -> list[dict[str, Any]]:
    """The WarpRun as the controller of a child, which goes when it goes.

    Without blockOwnerDeletion, which some clusters allow only to who may change the owner's finalizers.
    """
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "WarpRun",
            "name": run.metadata.name,
            "uid": uid,
            "controller": True,
        }
    ]


def owned_by_job(name: str, uid: str) -> list[dict[str, Any]]:
    """A Job as the controller of its Service."""
    return [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": name,
            "uid": uid,
            "controller": True,
        }
    ]
