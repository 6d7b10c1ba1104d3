"""Options and arguments that several commands share, so that they are spelt and explained once."""

from __future__ import annotations

from typing import Annotated

import typer

from warpctl.cli.output import OutputFormat

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A spec file, or the name (or namespace/name) of a run of this machine.")
]
StateDirOption = Annotated[
    str,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        envvar="WARPCTL_STATE_DIR",
        show_default=False,
        help="Where this machine keeps logs and locks of its runs; default: $XDG_STATE_HOME/warpctl or ~/.local/state/warpctl.",
    ),
]
OutputOption = Annotated[OutputFormat, typer.Option("--output", "-o", help="How to print the result.")]
