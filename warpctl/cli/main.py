"""The `warpctl` program: commands by name, and one place where every error becomes text and an exit code.

Exit codes: 0 done, 1 the run or operation failed, 2 bad input, 130 interrupted;
`diff` and `plan --detailed-exitcode`: 0 nothing to do, 1 something to do, 2 error.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from warpctl import __version__
from warpctl.cli.apply import apply
from warpctl.cli.controller import controller
from warpctl.cli.diff import diff
from warpctl.cli.error_text import show_crash, show_error, show_usage_error
from warpctl.cli.export import export
from warpctl.cli.gc import gc
from warpctl.cli.get import get
from warpctl.cli.logs import logs
from warpctl.cli.merge import merge
from warpctl.cli.plan import plan
from warpctl.cli.report import report
from warpctl.cli.run import run
from warpctl.cli.schema import schema
from warpctl.cli.status import status
from warpctl.cli.validate import validate
from warpctl.cli.verbs import cancel, delete, refresh, resume, retry, suspend
from warpctl.cli.version import version
from warpctl.cli.watch import watch
from warpctl.errors import EXIT_CTRL_C, EXIT_DONE, EXIT_FAILED, WarpctlError

app = typer.Typer(
    name="warpctl",
    help="Align language models with WARP: a WarpRun in YAML becomes a KL-reward front.",
    epilog="Exit codes: 0 done, 1 the run or operation failed, 2 bad input, 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.command(short_help="Check spec files, all problems at once.")(validate)
app.command(short_help="Show what is reused, what is new, what changed.")(plan)
app.command(short_help="Run a WarpRun on this machine, or go on with it.")(run)
app.command(short_help="Look at a run: conditions, stages, front.")(status)
app.command(short_help="Print what the workers said.")(logs)
app.command(short_help="Print, or first make, the report of a run.")(report)
app.command(short_help="Write a point of the front as a model folder.")(export)
app.command(short_help="Merge checkpoints that no run made.")(merge)
app.command(short_help="Show, or sweep, what no run wants any more.")(gc)
app.command(short_help="Hand WarpRuns to a cluster.")(apply)
app.command(short_help="In a cluster: what a changed file would rerun, cancel, reuse.")(diff)
app.command(short_help="List the WarpRuns of a cluster.")(get)
app.command(short_help="In a cluster: a run as it goes.")(watch)
app.command(short_help="In a cluster: let a run's workers save and leave.")(suspend)
app.command(short_help="In a cluster: go on with a run.")(resume)
app.command(short_help="In a cluster: stop a run without touching its spec.")(cancel)
app.command(short_help="In a cluster: try stalled stages again.")(retry)
app.command(short_help="In a cluster: import models and prompts again.")(refresh)
app.command(short_help="In a cluster: delete a run, not its artifacts.")(delete)
app.command(short_help="Drive the WarpRuns of a cluster.")(controller)
app.command(short_help="Print the fields of a WarpRun.")(schema)
app.command(short_help="Print versions.")(version)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"warpctl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    no_color: Annotated[
        bool, typer.Option("--no-color", help="No colour, no bold, no dim, plain ASCII symbols; as NO_COLOR=1.")
    ] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    if no_color:
        os.environ["NO_COLOR"] = "1"


def main() -> None:
    """The console script."""
    sys.exit(run_command(sys.argv[1:] or ["--help"]))


def plugin() -> None:
    """The console script kubectl-warprun, which kubectl runs as `kubectl warprun`: RUN is a WarpRun of the cluster."""
    os.environ["WARPCTL_CLUSTER"] = "1"
    sys.exit(run_command(sys.argv[1:] or ["--help"], program="kubectl warprun"))


def run_command(arguments: list[str], *, program: str = "warpctl") -> int:
    """Run one command line; returns the exit code, having said on stderr what went wrong."""
    try:
        code = app(arguments, prog_name=program, standalone_mode=False)
        sys.stdout.flush()
    except WarpctlError as error:
        return show_error(error)
    except BrokenPipeError:  # the reader of our output has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_CTRL_C
    except Exception as error:  # noqa: BLE001  # the last net: nobody but us would see a traceback
        if hasattr(error, "format_message"):  # click's usage errors, whichever click typer brings along
            context = getattr(error, "ctx", None)
            return show_usage_error(error.format_message(), context.command_path if context else program)
        return show_crash(error)
    return code if isinstance(code, int) else EXIT_DONE
