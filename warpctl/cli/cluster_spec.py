"""A spec file on its way to a cluster: what is sent, where to, and what no cluster could read."""

from __future__ import annotations

from typing import Any

from warpctl.errors import UserError
from warpctl.kube.api import Object
from warpctl.kube.connection import Connection
from warpctl.render.tenancy import laptop_paths
from warpctl.spec.warp_run import WarpRun


def body_of(run: WarpRun, namespace: str, spec: dict[str, Any]) -> Object:
    """What is sent: what the file says, letter by letter and without a default. So nothing drifts from it, and kubectl, Argo CD or
    Flux, which send the file too, are of one mind with us.
    """
    metadata: Object = {"name": run.metadata.name, "namespace": namespace}
    for part in ("labels", "annotations"):
        if getattr(run.metadata, part):
            metadata[part] = dict(getattr(run.metadata, part))
    return {"apiVersion": run.api_version, "kind": run.kind, "metadata": metadata, "spec": spec}


def place_of(run: WarpRun, namespace: str, connection: Connection) -> str:
    """The namespace that a run goes to; UserError when its file and the command line disagree."""
    if namespace and _own_namespace(run) not in ("", namespace):
        raise UserError(
            f"{run.metadata.name} says namespace {run.metadata.namespace}, --namespace says {namespace}",
            hint="take one of them away",
        )
    return namespace or _own_namespace(run) or connection.namespace


def _own_namespace(run: WarpRun) -> str:
    return run.metadata.namespace if "namespace" in run.metadata.model_fields_set else ""


def refuse_laptop_paths(spec: str, run: WarpRun) -> None:
    """UserError for what only this machine can read."""
    refused = laptop_paths(run)
    if refused:
        first = refused[0]
        raise UserError(
            f"{spec}: {first.field} {first.message}, got {first.value}",
            hint=f"`warpctl run {spec}` uses it here; a cluster reads gs://, s3://, hf:// or https://",
        )
