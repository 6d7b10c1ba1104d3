"""Namespaces as tests and developers want them."""

from __future__ import annotations

import time

import kubernetes

LEVEL = "pod-security.kubernetes.io"
RESTRICTED = {f"{LEVEL}/enforce": "restricted", f"{LEVEL}/warn": "restricted", f"{LEVEL}/audit": "restricted"}
READY_SECONDS = 30


def create_namespace(core: kubernetes.client.CoreV1Api, name: str, labels: dict[str, str] | None = None) -> None:
    """Create a namespace at the restricted Pod Security level and wait until pods can be made in it."""
    metadata = {"name": name, "labels": RESTRICTED if labels is None else labels}
    core.create_namespace({"metadata": metadata})
    # Two controllers fill it; until they have, admission refuses every pod.
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if _has(core.read_namespaced_service_account, "default", name) and _has(
            core.read_namespaced_config_map, "kube-root-ca.crt", name
        ):
            return
        time.sleep(0.05)
    raise RuntimeError(
        f"namespace {name}: no service account after {READY_SECONDS} s; is the controller-manager alive?"
    )


def delete_namespace(core: kubernetes.client.CoreV1Api, name: str) -> None:
    """Ask for its deletion; a cluster that is not ours finishes it in its own time."""
    core.delete_namespace(name, grace_period_seconds=0)


def _has(read, name: str, namespace: str) -> bool:
    try:
        read(name, namespace)
    except kubernetes.client.ApiException as error:
        if error.status != 404:
            raise
        return False
    return True
