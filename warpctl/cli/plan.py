"""`warpctl plan`: what a run would do, and what a changed spec costs."""

from __future__ import annotations

from typing import Annotated

import typer

from warpctl.cli.options import OutputOption, RunArgument, StateDirOption
from warpctl.cli.output import OutputFormat


def plan(
    spec: RunArgument,
    is_detailed: Annotated[
        bool,
        typer.Option(
            "--detailed-exitcode", help="Exit 0 when there is nothing to do, 1 when there is, 2 after an error."
        ),
    ] = False,
    output: OutputOption = OutputFormat.TABLE,
    state_dir: StateDirOption = "",
) -> None:
    """Show the stages of a spec: what is reused, what is new, and what changed since the last run. Changes nothing."""
    from warpctl.cli.error_text import show_error
    from warpctl.cli.output import emit
    from warpctl.cli.plan_text import plan_document, plan_text
    from warpctl.cli.planned import planned
    from warpctl.cli.run_reference import resolve
    from warpctl.cli.terminal import next_steps
    from warpctl.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, WarpctlError

    try:
        found = planned(resolve(spec, state_dir))
    except WarpctlError as error:
        if not is_detailed:
            raise
        show_error(error)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    emit(
        output,
        document=plan_document(found),
        names=[row.id for row in found.rows],
        tables=lambda: plan_text(found, is_wide=output is OutputFormat.WIDE),
    )
    if output.is_for_people:
        next_steps(f"warpctl run {spec}", *([f"warpctl status {spec}"] if found.num_reused else []))
    if is_detailed:
        raise typer.Exit(EXIT_FAILED if found.num_to_make or found.changes else EXIT_DONE)
