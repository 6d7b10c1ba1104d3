"""`warpctl status`: what is seen of a run now."""

from __future__ import annotations

from typing import Annotated

import typer

from warpctl.cli.options import OutputOption, RunArgument, StateDirOption
from warpctl.cli.output import OutputFormat


def status(
    run: RunArgument,
    output: OutputOption = OutputFormat.TABLE,
    is_exit_code_wanted: Annotated[
        bool, typer.Option("--exit-code", help="Exit 1 unless the run has succeeded.")
    ] = False,
    state_dir: StateDirOption = "",
) -> None:
    """Look at a run anew: conditions, stages, front. Changes nothing."""
    from datetime import UTC, datetime

    from warpctl.cli.front_text import front_text, report_place
    from warpctl.cli.output import emit
    from warpctl.cli.run_reference import resolve
    from warpctl.cli.stage_table import reasons, stages_text
    from warpctl.cli.status_text import conditions_text, headline
    from warpctl.cli.terminal import next_steps
    from warpctl.plan.progress import summarise
    from warpctl.spec.status import STALLED, SUCCEEDED

    reference = resolve(run, state_dir)
    seen = summarise(reference.run, reference.engine().observe(), datetime.now(UTC))

    def tables() -> str:
        front = front_text(reference)
        parts = [
            headline(seen, is_attended=reference.folder.is_held()),
            conditions_text(seen),
            stages_text(seen, is_wide=output is OutputFormat.WIDE),
        ]
        parts += ["\n".join(reasons(seen.stages))]
        parts += [f"{front.table}\n{front.best}".rstrip()] if front else []
        place = report_place(reference)
        return "\n\n".join(part for part in [*parts, f"report: {place}" if place else ""] if part)

    emit(
        output,
        document=seen.model_dump(mode="json", by_alias=True),
        names=[stage.id for stage in seen.stages],
        tables=tables,
    )
    if output.is_for_people:
        if seen.is_true(SUCCEEDED):
            next_steps(f"warpctl report {run}", f"warpctl export {run} --max-kl 10 --to DIR")
        elif seen.is_true(STALLED):
            next_steps(f"warpctl logs {run}", f"warpctl run {run}  # tries again")
        else:
            next_steps(f"warpctl logs {run} --follow", f"warpctl run {run}  # starts it or goes on")
    if is_exit_code_wanted and not seen.is_true(SUCCEEDED):
        raise typer.Exit(1)
