"""RUN on the command line of what works for both: a run of this machine, or with --cluster, -n or --context one of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from warpctl.cli.run_reference import RunReference

ClusterOption = Annotated[
    bool,
    typer.Option(
        "--cluster",
        envvar="WARPCTL_CLUSTER",
        show_envvar=False,
        help="RUN is a WarpRun of the cluster, as with -n, --context and --kubeconfig, and in `kubectl warprun`.",
    ),
]


def resolve_any(
    run: str, state_dir: str, *, is_in_cluster: bool, namespace: str, context: str, kubeconfig: str
) -> RunReference:
    """The run that is meant; UserError when there is none."""
    if is_in_cluster or namespace or context or kubeconfig:
        from warpctl.cli.cluster_run import resolve_in_cluster

        return resolve_in_cluster(run, namespace, context, kubeconfig, state_dir)
    from warpctl.cli.run_reference import resolve

    return resolve(run, state_dir)
