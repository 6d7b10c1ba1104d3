"""`warpctl apply`: hand WarpRuns to a cluster's controller."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from warpctl.cli.cluster import ContextOption, KubeconfigOption, NamespaceOption

if TYPE_CHECKING:
    from warpctl.kube.api import Object
    from warpctl.kube.connection import Connection

POLL_SECONDS = 1.0


class DryRun(StrEnum):
    """As kubectl has it, whose `client` is `warpctl validate`."""

    NONE = "none"
    SERVER = "server"


def apply(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC", help="Spec files.")],
    *,
    dry_run: Annotated[
        DryRun, typer.Option("--dry-run", help="server: let the API server check everything and keep nothing.")
    ] = DryRun.NONE,
    is_waiting: Annotated[
        bool, typer.Option("--wait", help="Stay until every run has succeeded; exit 1 when one stalls or is suspended.")
    ] = False,
    is_sure: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before a change cancels stages that run.")
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
    from warpctl.cli.cluster_diff import confirm_cancelling
    from warpctl.cli.cluster_spec import body_of, place_of, refuse_laptop_paths
    from warpctl.cli.terminal import has_somebody_to_ask, next_steps, result
    from warpctl.kube.resources import WARPRUNS
    from warpctl.spec.parse import parse_file, written_spec

    is_dry_run = dry_run is DryRun.SERVER
    runs = [parse_file(spec) for spec in specs]
    for spec, run in zip(specs, runs, strict=True):
        refuse_laptop_paths(spec, run)
    connection = cluster(kubeconfig, context)
    if has_somebody_to_ask() and not (is_sure or is_dry_run):
        for spec in specs:
            confirm_cancelling(spec, connection, namespace)
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


def _verb(written: Object, *, is_dry_run: bool) -> str:
    if is_dry_run:
        return "would be accepted (dry run)"
    return "created" if written["metadata"].get("generation") == 1 else "configured"


def _wait(connection: Connection, applied: list[Object]) -> None:
    """Until every run has succeeded; one line a change of Ready. WarpctlError when one goes nowhere by itself."""
    import time

    from warpctl.cli.cluster import condition_of
    from warpctl.cli.terminal import note
    from warpctl.errors import WarpctlError
    from warpctl.kube.errors import ClusterUnavailableError
    from warpctl.kube.resources import WARPRUNS
    from warpctl.spec.status import READY

    said: dict[str, str] = {}
    waiting = {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in applied}
    generation = {(e["metadata"]["namespace"], e["metadata"]["name"]): e["metadata"]["generation"] for e in applied}
    while waiting:
        for key in sorted(waiting):
            try:
                run = connection.api.get(WARPRUNS, *key)
            except ClusterUnavailableError as error:
                note(f"{error.message}; asked again")
                continue
            if run is None:
                raise WarpctlError(f"WarpRun {key[1]} was deleted", hint="its artifacts are kept unless it said Delete")
            ready = condition_of(run, READY)
            if ready.get("observedGeneration", 0) < generation[key]:
                continue
            line = f"{key[1]}: {ready['reason']}: {ready['message']}"
            if said.get(key[1]) != line:
                said[key[1]] = line
                note(line)
            if _has_succeeded(run):
                waiting.discard(key)
        if waiting:
            time.sleep(POLL_SECONDS)


def _has_succeeded(run: Object) -> bool:
    """WarpctlError for a run that goes nowhere by itself."""
    from warpctl.cli.cluster import condition_of
    from warpctl.errors import WarpctlError
    from warpctl.spec.status import READY, RECONCILING, STALLED, SUCCEEDED, SUSPENDED

    is_true = {
        kind: condition_of(run, kind).get("status") == "True" for kind in (RECONCILING, STALLED, SUCCEEDED, SUSPENDED)
    }
    name, message = run["metadata"]["name"], condition_of(run, READY)["message"]
    if is_true[SUCCEEDED] or is_true[RECONCILING]:  # other stages may be at work beside one that has failed for good
        return is_true[SUCCEEDED]
    if is_true[STALLED]:
        raise WarpctlError(f"{name} has stalled: {message}", hint=f"mend it, then warpctl retry {name}")
    if is_true[SUSPENDED]:
        raise WarpctlError(f"{name} is suspended: {message}", hint=f"warpctl status {name} --cluster says more")
    return False
