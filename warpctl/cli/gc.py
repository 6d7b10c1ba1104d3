"""`warpctl gc`: sweep what no run wants."""

from __future__ import annotations

from typing import Annotated

import typer

from warpctl.cli.options import OutputOption
from warpctl.cli.output import OutputFormat


def gc(
    storage: Annotated[
        str, typer.Argument(metavar="STORAGE|SPEC", help="The artifact store, by URI or path, or a spec that names it.")
    ],
    *,
    is_sure: Annotated[bool, typer.Option("--yes", "-y", help="Delete what the plan shows.")] = False,
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Only show the plan; so it is without --yes.")] = False,
    min_age: Annotated[
        str, typer.Option("--min-age", metavar="AGE", help="Spare unwanted files younger than this: 30m, 12h, 7d.")
    ] = "1d",
    is_without_runs: Annotated[
        bool, typer.Option("--even-without-runs", help="With --yes: also where no run says what it wants.")
    ] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show what no run of a store wants any more, and with --yes delete it. Safe beside runs that are going on."""
    from datetime import UTC, datetime

    from warpctl.cli.counts import count_text
    from warpctl.cli.durations import parse_duration
    from warpctl.cli.gc_store import open_store
    from warpctl.cli.gc_text import gc_document, gc_text
    from warpctl.cli.output import emit
    from warpctl.cli.sizes import size_text
    from warpctl.cli.terminal import next_steps, note, warn
    from warpctl.errors import UserError
    from warpctl.storage.gc import plan_gc, sweep
    from warpctl.storage.wanted import read_all_wanted

    if is_sure and is_dry:
        raise UserError("--yes and --dry-run exclude each other", hint="without --yes nothing is deleted")
    age = parse_duration(min_age)
    store = open_store(storage)
    plan = plan_gc(store, now=datetime.now(UTC), min_age=age)
    emit(
        output,
        document=gc_document(plan),
        names=[item.path for item in plan.items],
        tables=lambda: gc_text(plan, is_wide=output is OutputFormat.WIDE),
    )
    is_nobodys = bool(plan.items) and not read_all_wanted(store)
    if is_nobodys and not (is_sure and is_without_runs):
        what = f"no run in {store.root} says what it wants, so that nothing in it is kept: {count_text(len(plan.items), 'file')}"
        hint = "is this the right store? `warpctl run` writes what a run wants; --yes --even-without-runs deletes all the same"
        if is_sure:
            raise UserError(what, hint=hint)
        warn(what, hint=hint)
        return
    if not is_sure:
        if plan.items and output.is_for_people:
            next_steps(f"warpctl gc {storage} --min-age {min_age} --yes  # deletes these files")
        return
    swept = sweep(store, plan)
    note(f"deleted {count_text(swept.num_files, 'file')}, {size_text(swept.num_bytes)}")
    for kind, key in swept.skipped:
        note(f"left alone, a run has come to want it: {kind} {key[:12]}")
