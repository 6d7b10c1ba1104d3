"""`warpctl validate`: is a spec acceptable?"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from warpctl.cli.terminal import GREEN, next_steps, paint, result, symbols


def validate(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC", help="Spec files.")],
) -> None:
    """Check specs: every problem of every file, with its line and a hint. Nothing is read but the files."""
    from warpctl.cli.counts import shape_text
    from warpctl.errors import Problem, SpecError
    from warpctl.spec.parse import parse_file

    problems: list[Problem] = []
    for spec in specs:
        try:
            run = parse_file(spec)
        except SpecError as error:
            problems += error.problems
            continue
        icon = paint(symbols(sys.stdout).done, GREEN, sys.stdout)
        result(f"{icon} {spec} is valid: WarpRun {run.full_name}, {shape_text(run)}")
    if problems:
        raise SpecError(tuple(problems))
    next_steps(f"warpctl plan {specs[0]}", f"warpctl run {specs[0]}")
