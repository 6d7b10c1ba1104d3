"""`warpctl report`: where the report is, made now where it is missing; with --compare, several runs on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from warpctl.cli.any_run import ClusterOption
from warpctl.cli.cluster import ContextOption, KubeconfigOption, NamespaceOption
from warpctl.cli.options import StateDirOption

if TYPE_CHECKING:
    from warpctl.cli.run_reference import RunReference

RunsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN",
        help="A spec file, or the name (or namespace/name) of a run of this machine; with --compare two or more.",
    ),
]


def report(
    runs: RunsArgument,
    *,
    is_again: Annotated[bool, typer.Option("--again", help="Make it anew even if it is up to date.")] = False,
    is_comparison: Annotated[
        bool,
        typer.Option("--compare", help="The fronts of several runs on one page, each further one minus the first."),
    ] = False,
    to: Annotated[
        str,
        typer.Option("--to", metavar="FILE", help="With --compare: where the page goes; default: A-vs-B.html, here."),
    ] = "",
    is_in_cluster: ClusterOption = False,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    state_dir: StateDirOption = "",
) -> None:
    """Print where the report of a run is; make it first when evaluations have come that it does not show. In a cluster the
    controller makes it after each iteration.

    With --compare: write a page with the fronts of the runs, their differences with intervals, and how their specs differ.
    """
    from warpctl.cli.any_run import resolve_any
    from warpctl.errors import UserError

    if is_comparison:
        from warpctl.cli.report_comparison import report_comparison

        if is_again:
            raise UserError("--again is not for --compare", hint="a comparison is made anew every time")
        report_comparison(runs, to=to, state_dir=state_dir)
        return
    if len(runs) > 1:
        raise UserError(f"one run at a time, got {len(runs)}", hint="--compare shows several on one page")
    if to:
        raise UserError(
            "--to is for --compare", hint="the report of a run lies in its store; this command prints where"
        )
    reference = resolve_any(
        runs[0], state_dir, is_in_cluster=is_in_cluster, namespace=namespace, context=context, kubeconfig=kubeconfig
    )
    if reference.is_in_cluster and is_again:
        raise UserError("--again is not for a run of a cluster", hint="its controller makes the report")
    _report_one(reference, runs[0], is_again=is_again)


def _report_one(reference: RunReference, run: str, *, is_again: bool) -> None:
    from warpctl.cli.front_text import front_text, report_place
    from warpctl.cli.report_making import make_report
    from warpctl.cli.terminal import next_steps, result
    from warpctl.errors import FinalError, UserError

    flag = " --cluster" if reference.is_in_cluster else ""
    if not reference.is_in_cluster:
        make_report(reference, is_again=is_again)
    front = front_text(reference)
    place = report_place(reference)
    if reference.is_in_cluster and (front is None or not place):
        raise UserError(
            f"{run} has no report yet, or its store cannot be read from here",
            hint=f"the first comes after iteration 1; `warpctl watch {run}` shows how far it is",
        )
    if front is None or not place:
        raise FinalError("the report was made but is not in the store", hint=f"`warpctl report {run} --again`")
    result(front.table)
    if front.best:
        result(front.best)
    result(f"report: {place}")
    next_steps(f"warpctl export {run}{flag} --max-kl 10 --to DIR  # the best point below that KL, as a model folder")
