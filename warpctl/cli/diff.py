"""`warpctl diff`: what a changed file would do to a run of a cluster, before `warpctl apply` does it."""

from __future__ import annotations

from typing import Annotated

import typer

from warpctl.cli.cluster import ContextOption, KubeconfigOption, NamespaceOption
from warpctl.cli.options import OutputOption
from warpctl.cli.output import OutputFormat


def diff(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="A spec file.")],
    *,
    output: OutputOption = OutputFormat.TABLE,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
) -> None:
    """Show which fields differ from the WarpRun in the cluster, and which stages would rerun, be cancelled or be reused,
    with what they have cost so far. Exit 0 when nothing differs, 1 when something does, 2 after an error.
    """
    from warpctl.cli.cluster import cluster
    from warpctl.cli.cluster_diff import Difference, difference, difference_text
    from warpctl.cli.error_text import show_error
    from warpctl.cli.output import emit
    from warpctl.cli.plan_text import plan_document
    from warpctl.cli.terminal import next_steps
    from warpctl.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, WarpctlError

    try:
        found: Difference = difference(spec, cluster(kubeconfig, context), namespace)
    except WarpctlError as error:
        show_error(error)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    emit(
        output,
        document=plan_document(found.plan) | found.document(),
        names=[row.id for row in found.plan.rows],
        tables=lambda: difference_text(found, is_wide=output is OutputFormat.WIDE),
    )
    if output.is_for_people and found.is_any:
        next_steps(f"warpctl apply {spec}")
    raise typer.Exit(EXIT_FAILED if found.is_any else EXIT_DONE)
