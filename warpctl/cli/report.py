"""`warpctl report`: where the report is, made now where it is missing."""

from __future__ import annotations

from typing import Annotated

import typer

from warpctl.cli.options import RunArgument, StateDirOption


def report(
    run: RunArgument,
    is_again: Annotated[bool, typer.Option("--again", help="Make it anew even if it is up to date.")] = False,
    state_dir: StateDirOption = "",
) -> None:
    """Print where the report of a run is; make it first when evaluations have come that it does not show."""
    from warpctl.cli.front_text import front_text, report_place
    from warpctl.cli.report_making import make_report
    from warpctl.cli.run_reference import resolve
    from warpctl.cli.terminal import next_steps, result
    from warpctl.errors import FinalError

    reference = resolve(run, state_dir)
    make_report(reference, is_again=is_again)
    front = front_text(reference)
    place = report_place(reference)
    if front is None or not place:
        raise FinalError("the report was made but is not in the store", hint=f"`warpctl report {run} --again`")
    result(front.table)
    if front.best:
        result(front.best)
    result(f"report: {place}")
    next_steps(f"warpctl export {run} --max-kl 10 --to DIR  # the best point below that KL, as a model folder")
