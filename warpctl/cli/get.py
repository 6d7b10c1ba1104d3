"""`warpctl get`: the WarpRuns of a cluster, as `kubectl get warpruns` shows them and a little more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from warpctl.cli.cluster import ContextOption, KubeconfigOption, NamespaceOption
from warpctl.cli.options import OutputOption
from warpctl.cli.output import OutputFormat


def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One run; default: all of the namespace.")] = "",
    *,
    output: OutputOption = OutputFormat.TABLE,
    is_everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="The runs of all namespaces.")] = False,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
) -> None:
    """List the WarpRuns of a cluster: how far they are, their best point, what they have cost."""
    from datetime import UTC, datetime

    from warpctl import names
    from warpctl.cli.cluster import cluster, explained, the_run
    from warpctl.cli.output import emit
    from warpctl.cli.table import table_text
    from warpctl.cli.terminal import note
    from warpctl.kube.resources import WARPRUNS

    connection = cluster(kubeconfig, context)
    place = "" if is_everywhere else namespace or connection.namespace
    with explained(f"there is nothing in namespace {place}"):
        runs = [the_run(connection, namespace, name)] if name else connection.api.list(WARPRUNS, place).items
    for run in runs:
        run["metadata"].pop("managedFields", None)
    now = datetime.now(UTC)

    def table() -> str:
        is_wide = output is OutputFormat.WIDE
        columns = ["NAME", "STATUS", "ITER", "STAGES", "KL", "REWARD", "RETRIES", "GPU-H", "AGE"]
        columns = [*(["NAMESPACE"] if is_everywhere else []), *columns, *(["STORAGE", "MESSAGE"] if is_wide else [])]
        rows = [_row(run, now, is_wide=is_wide, is_everywhere=is_everywhere) for run in runs]
        return table_text(columns, rows)

    emit(
        output,
        document=runs[0] if name else {"apiVersion": "v1", "kind": "List", "items": runs},
        names=[f"warprun.{names.GROUP}/{run['metadata']['name']}" for run in runs],
        tables=table if runs else lambda: "",
    )
    if not runs:
        note(f"no WarpRuns in {f'namespace {place}' if place else 'this cluster'}")


def _row(run: Mapping[str, Any], now: Any, *, is_wide: bool, is_everywhere: bool) -> list[str]:
    from datetime import datetime

    from warpctl.cli.cluster import condition_of
    from warpctl.cli.durations import duration_text
    from warpctl.spec.status import READY

    status, metadata = run.get("status") or {}, run["metadata"]
    best, ready = status.get("best") or {}, condition_of(run, READY)
    age = (now - datetime.fromisoformat(metadata["creationTimestamp"])).total_seconds()
    row = [
        metadata["name"],
        ready.get("reason", "Unknown"),
        status.get("iterationText") or "-",
        status.get("stagesText") or "-",
        best.get("kl") or "-",
        best.get("reward") or "-",
        str(status.get("retries", 0)),
        status.get("gpuHours") or "-",
        duration_text(age),
    ]
    wide = [run["spec"]["storage"]["uri"], ready.get("message", "-")] if is_wide else []
    return [*([metadata["namespace"]] if is_everywhere else []), *row, *wide]
