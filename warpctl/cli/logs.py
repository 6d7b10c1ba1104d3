"""`warpctl logs`: what the workers said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from warpctl.cli.any_run import ClusterOption
from warpctl.cli.cluster import ContextOption, KubeconfigOption, NamespaceOption
from warpctl.cli.options import RunArgument, StateDirOption

if TYPE_CHECKING:
    from warpctl.cli.cluster_run import ClusterRun
    from warpctl.cli.log_sources import Wanted
    from warpctl.cli.run_reference import RunReference


def logs(
    run: RunArgument,
    *,
    stage: Annotated[
        str, typer.Argument(metavar="STAGE", help="A stage such as rl/1/2, or all below rl/1 or rl; default: all.")
    ] = "",
    is_following: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as the workers do, until they end.")
    ] = False,
    is_previous: Annotated[bool, typer.Option("--previous", "-p", help="The attempt before the newest.")] = False,
    attempt: Annotated[
        int, typer.Option("--attempt", min=0, show_default=False, help="The attempt of this number.")
    ] = 0,
    node: Annotated[
        int, typer.Option("--node", min=-1, show_default=False, help="In a cluster: the pod of this index only.")
    ] = -1,
    is_in_cluster: ClusterOption = False,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    state_dir: StateDirOption = "",
) -> None:
    """Print the logs of a run's stages, the newest attempt of each, from this machine or its pods, or else from the store."""
    from warpctl.cli.any_run import resolve_any
    from warpctl.cli.log_sources import Wanted, find_logs
    from warpctl.cli.log_stream import follow, print_logs
    from warpctl.cli.terminal import next_steps
    from warpctl.errors import UserError

    if is_previous and attempt:
        raise UserError("--previous and --attempt exclude each other", hint="--attempt 1 is the first attempt")
    if is_following and (is_previous or attempt):
        raise UserError("--follow shows the newest attempts only", hint="leave out --previous and --attempt")
    wanted = Wanted(stage.rstrip("/"), is_previous=is_previous, number=attempt)
    reference = resolve_any(
        run, state_dir, is_in_cluster=is_in_cluster, namespace=namespace, context=context, kubeconfig=kubeconfig
    )
    if reference.is_in_cluster:
        _of_pods(reference, wanted, node, is_following=is_following)
        next_steps(f"warpctl status {run} --cluster")
        return
    engine = reference.engine()
    found = find_logs(reference, engine.observe(), wanted)
    if is_following:
        follow(reference, engine, wanted)
    elif not found:
        which = f"attempt {attempt} of {stage or 'any stage'}" if attempt else stage or "any stage"
        raise UserError(f"there is no log of {which} yet", hint=f"`warpctl status {run}` lists stages and attempts")
    else:
        print_logs(reference, found)
    next_steps(f"warpctl status {run}")


def _of_pods(reference: RunReference, wanted: Wanted, node: int, *, is_following: bool) -> None:
    from warpctl.cli.cluster_logs import follow_pods, print_pods

    show = follow_pods if is_following else print_pods
    show(cast("ClusterRun", reference), wanted, node)
