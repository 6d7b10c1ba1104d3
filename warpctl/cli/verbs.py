"""Verbs for a WarpRun in a cluster: suspend, resume, cancel, retry, refresh, delete.

Suspend and resume change the spec, as an editor would. Cancel, retry and refresh are annotations, which GitOps tools leave alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from warpctl.cli.cluster import ContextOption, KubeconfigOption, NameArgument, NamespaceOption

if TYPE_CHECKING:
    from warpctl.kube.api import Object


def suspend(
    name: NameArgument,
    *,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
) -> None:
    """Let the run's workers save and leave (spec.suspend); `resume` goes on from there."""
    _change(name, {"spec": {"suspend": True}}, "suspended", (namespace, context, kubeconfig))


def resume(
    name: NameArgument,
    *,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
) -> None:
    """Go on with a run that was suspended or cancelled."""
    from warpctl import names
    from warpctl.cli.cluster import cluster, the_run

    run = the_run(cluster(kubeconfig, context), namespace, name)
    body: Object = {"metadata": {"annotations": {names.CANCEL: None}}}
    if run["spec"].get("suspend"):
        body["spec"] = {"suspend": False}
    _change(name, body, "resumed", (namespace, context, kubeconfig))


def cancel(
    name: NameArgument,
    *,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Kept in the annotation.")] = "warpctl cancel",
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
) -> None:
    """Let the run's workers save and leave without touching its spec; it stays so until `resume`."""
    from warpctl import names

    _change(name, {"metadata": {"annotations": {names.CANCEL: why}}}, "cancelled", (namespace, context, kubeconfig))


def retry(
    name: NameArgument,
    *,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
) -> None:
    """Pardon what has failed so far: stalled stages are tried again."""
    from warpctl import names
    from warpctl.cli.cluster import cluster

    # The server's clock: the failures' times are its own, and a laptop's may be wrong.
    instant = cluster(kubeconfig, context).api.server_time().strftime("%Y-%m-%dT%H:%M:%SZ")
    _change(
        name, {"metadata": {"annotations": {names.RETRY: instant}}}, "tried again", (namespace, context, kubeconfig)
    )


def refresh(
    name: NameArgument,
    *,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
) -> None:
    """Import models and prompts again: what has changed under the same URIs is picked up."""
    import uuid

    from warpctl import names

    nonce = uuid.uuid4().hex[:12]
    _change(
        name, {"metadata": {"annotations": {names.REFRESH: nonce}}}, "imported again", (namespace, context, kubeconfig)
    )


def delete(
    name: NameArgument,
    *,
    is_sure: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before artifacts are deleted too.")] = False,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
) -> None:
    """Delete a WarpRun and its Jobs. Artifacts stay, unless spec.deletionPolicy is Delete."""
    from warpctl.cli.cluster import cluster, the_run
    from warpctl.cli.terminal import has_somebody_to_ask, is_agreed, result
    from warpctl.errors import UserError
    from warpctl.kube.resources import WARPRUNS

    connection = cluster(kubeconfig, context)
    run = the_run(connection, namespace, name)
    metadata, storage = run["metadata"], run["spec"]["storage"]["uri"]
    if run["spec"].get("deletionPolicy") == "Delete" and not is_sure:
        if not has_somebody_to_ask():
            raise UserError(
                f"{name} would be deleted with its artifacts in {storage} (spec.deletionPolicy is Delete)",
                hint="--yes does it; set deletionPolicy to Retain to keep them",
            )
        if not is_agreed(f"Delete {name} and its artifacts in {storage}?"):
            raise UserError("nothing was deleted", hint="set spec.deletionPolicy to Retain to keep the artifacts")
    connection.api.delete(WARPRUNS, metadata["namespace"], name, uid=metadata["uid"])
    result(
        f"{name} deleted" + ("" if run["spec"].get("deletionPolicy") == "Delete" else f"; artifacts stay in {storage}")
    )


def _change(name: str, body: Object, what: str, where: tuple[str, str, str]) -> None:
    from warpctl.cli.cluster import cluster, the_run
    from warpctl.cli.terminal import next_steps, result
    from warpctl.kube.resources import WARPRUNS

    namespace, context, kubeconfig = where
    connection = cluster(kubeconfig, context)
    run = the_run(connection, namespace, name)
    connection.api.patch(WARPRUNS, run["metadata"]["namespace"], name, body)
    result(f"{name} is being {what}")
    next_steps(f"warpctl get {name}")
