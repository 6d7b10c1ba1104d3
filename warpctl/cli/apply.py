"""`warpctl apply`: hand WarpRuns to a cluster's controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from warpctl.cli.cluster import ContextOption, KubeconfigOption, NamespaceOption

if TYPE_CHECKING:
    from warpctl.kube.api import Object
    from warpctl.kube.connection import Connection
    from warpctl.spec.warp_run import WarpRun

POLL_SECONDS = 1.0


def apply(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC", help="Spec files.")],
    *,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the API server check everything and keep nothing.")
    ] = False,
    is_waiting: Annotated[
        bool, typer.Option("--wait", help="Stay until every run has succeeded; exit 1 when one stalls.")
    ] = False,
    is_forced: Annotated[
        bool, typer.Option("--force-conflicts", help="Take over fields that another manager, such as Argo CD, has set.")
    ] = False,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
) -> None:
    """Create or change WarpRuns in a cluster, by server-side apply. All files are checked before the first is sent."""
    from warpctl import names
    from warpctl.cli.cluster import cluster, explained
    from warpctl.cli.terminal import next_steps, result
    from warpctl.kube.resources import WARPRUNS
    from warpctl.spec.parse import parse_file, written_spec

    runs = [parse_file(spec) for spec in specs]
    for spec, run in zip(specs, runs, strict=True):
        refuse_laptop_paths(spec, run)
    connection = cluster(kubeconfig, context)
    applied = []
    for spec, run in zip(specs, runs, strict=True):
        place = place_of(run, namespace, connection)
        with explained(f"namespace {place} is not there"):
            written = connection.api.apply(
                WARPRUNS,
                place,
                body_of(run, place, written_spec(spec)),
                manager=names.FIELD_MANAGER,
                force=is_forced,
                is_dry_run=is_dry_run,
            )
        applied.append(written)
        result(f"warprun.{names.GROUP}/{run.metadata.name} {_verb(written, is_dry_run=is_dry_run)}")
    if is_dry_run:
        return
    if is_waiting:
        _wait(connection, applied)
    name = runs[0].metadata.name
    next_steps(f"warpctl watch {name}", f"warpctl status {name} --cluster")


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
    from warpctl.errors import UserError

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
    from warpctl.errors import UserError
    from warpctl.render.tenancy import laptop_paths

    refused = laptop_paths(run)
    if refused:
        first = refused[0]
        raise UserError(
            f"{spec}: {first.field} {first.message}, got {first.value}",
            hint=f"`warpctl run {spec}` uses it here; a cluster reads gs://, s3://, hf:// or https://",
        )


def _verb(written: Object, *, is_dry_run: bool) -> str:
    if is_dry_run:
        return "would be accepted (dry run)"
    return "created" if written["metadata"].get("generation") == 1 else "configured"


def _wait(connection: Connection, applied: list[Object]) -> None:
    """Until every run has succeeded; one line a change of Ready."""
    import time

    from warpctl.cli.cluster import condition_of
    from warpctl.cli.terminal import note
    from warpctl.errors import WarpctlError
    from warpctl.kube.resources import WARPRUNS
    from warpctl.spec.status import READY, STALLED, SUCCEEDED

    said: dict[str, str] = {}
    waiting = {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in applied}
    generation = {(e["metadata"]["namespace"], e["metadata"]["name"]): e["metadata"]["generation"] for e in applied}
    while waiting:
        for key in sorted(waiting):
            run = connection.api.get(WARPRUNS, *key)
            if run is None:
                raise WarpctlError(f"WarpRun {key[1]} was deleted", hint="its artifacts are kept unless it said Delete")
            ready = condition_of(run, READY)
            if ready.get("observedGeneration", 0) < generation[key]:
                continue
            line = f"{key[1]}: {ready['reason']}: {ready['message']}"
            if said.get(key[1]) != line:
                said[key[1]] = line
                note(line)
            if condition_of(run, SUCCEEDED).get("status") == "True":
                waiting.discard(key)
            elif condition_of(run, STALLED).get("status") == "True":
                raise WarpctlError(
                    f"{key[1]} has stalled: {ready['message']}", hint=f"mend it, then warpctl retry {key[1]}"
                )
        if waiting:
            time.sleep(POLL_SECONDS)
