"""`warpctl run`: a whole run on this machine, or what is left of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from warpctl.cli.options import StateDirOption

if TYPE_CHECKING:
    from datetime import datetime

    from warpctl.cli.local_run import LocalRun
    from warpctl.cli.run_reference import RunReference


def run(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="A spec file, or the name of a run to go on with.")],
    is_sure: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before a changed spec makes stages anew.")
    ] = False,
    state_dir: StateDirOption = "",
) -> None:
    """Run a WarpRun on this machine to its end, or go on with it. What is published already is not made again.

    Ctrl-C lets the workers save; the same command goes on from there.
    """
    import os
    from datetime import UTC, datetime

    from warpctl.cli.local_run import check_machine, check_store, make_local_run
    from warpctl.cli.preflight import check_functions, check_sources
    from warpctl.cli.run_reference import resolve
    from warpctl.cli.spec_changes import confirm_changes
    from warpctl.executors.places import this_machine

    began = datetime.now(UTC)
    reference = resolve(spec, state_dir)
    machine = this_machine(os.environ)
    check_machine(reference.run, machine)
    observed = reference.engine().observe()
    check_sources(reference, observed)
    check_functions(reference, observed, environment=os.environ)
    with reference.folder.lock():
        confirm_changes(reference, is_sure=is_sure)
        check_store(reference.store)
        reference.folder.accept(reference.run)
        local = make_local_run(reference, machine, environment=os.environ, retry_since=began)
        code = _drive(reference, local, began)
    raise typer.Exit(code)


def _drive(reference: RunReference, local: LocalRun, began: datetime) -> int:
    """Tick until the end and say how it was; returns the exit code."""
    from datetime import UTC, datetime

    from warpctl.cli.local_run import display_for, num_slots
    from warpctl.cli.run_end import tell_stalled, tell_succeeded, tell_suspended
    from warpctl.cli.run_loop import RunLoop
    from warpctl.cli.stop_signals import StopSignals
    from warpctl.cli.terminal import next_steps, note
    from warpctl.errors import EXIT_CTRL_C, Interrupted
    from warpctl.spec.status import STALLED, SUCCEEDED

    with StopSignals() as signals:
        try:
            slots = num_slots(reference.run, local.executor.machine)
            with display_for(reference, slots=slots) as display:
                loop = RunLoop(local.engine, local.executor, display, signals, lambda: datetime.now(UTC))
                status = loop.drive()
        except Interrupted as interruption:
            note(interruption.message)
            again = f"warpctl run {reference.typed}  # goes on from what was saved"
            next_steps(again, f"warpctl status {reference.typed}")
            return EXIT_CTRL_C
    if status.is_true(SUCCEEDED):
        return tell_succeeded(reference, status, began)
    if status.is_true(STALLED):
        return tell_stalled(reference, local, status)
    return tell_suspended(reference, status)
