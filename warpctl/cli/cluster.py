"""What the commands for a cluster share: its options, the connection, and the errors that a user can do something about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from warpctl.kube.api import Object
    from warpctl.kube.connection import Connection

NamespaceOption = Annotated[
    str, typer.Option("--namespace", "-n", metavar="NAME", help="Instead of the context's namespace.")
]
ContextOption = Annotated[str, typer.Option("--context", metavar="NAME", help="Context of the kubeconfig.")]
KubeconfigOption = Annotated[str, typer.Option("--kubeconfig", metavar="FILE", help="Instead of $KUBECONFIG.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a WarpRun in the cluster.")]


def cluster(kubeconfig: str, context: str) -> Connection:
    """The cluster that kubectl would speak to."""
    import os

    from stamina.instrumentation import set_on_retry_hooks

    from warpctl import __version__
    from warpctl.kube.connection import connect

    set_on_retry_hooks(())  # its own would print log lines among the results
    return connect(os.environ, kubeconfig=kubeconfig, context=context, agent=f"warpctl/{__version__}")


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an API server's refusal into what a user can do about it; `what` was wanted, as in `no WarpRun demo in ml`."""
    from warpctl.errors import UserError
    from warpctl.kube.errors import ClusterError

    try:
        yield
    except ClusterError as error:
        if error.is_absent and "not found" in error.message and "page not found" not in error.message:
            raise UserError(what, hint="`warpctl get` lists the runs of a namespace, -n names another") from error
        if error.is_absent:
            raise UserError(
                "this cluster does not know WarpRuns",
                hint="an administrator installs them: kubectl apply --server-side -k manifests/overlays/cluster",
            ) from error
        raise


def the_run(connection: Connection, namespace: str, name: str) -> Object:
    """A WarpRun that must be there."""
    from warpctl.errors import UserError
    from warpctl.kube.resources import WARPRUNS

    place = namespace or connection.namespace
    with explained(f"there is no WarpRun {name} in namespace {place}"):
        found = connection.api.get(WARPRUNS, place, name)
        if found is None:
            connection.api.list(WARPRUNS, place)  # tells an absent run from an absent definition
            raise UserError(
                f"there is no WarpRun {name} in namespace {place}",
                hint="`warpctl get` lists the runs of a namespace, -n names another",
            )
    return found


def condition_of(run: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """One condition of a WarpRun, {} before its first visit."""
    conditions = (run.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == kind), {})
