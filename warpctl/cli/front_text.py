"""The front at the end of a run and in `warpctl status`."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from warpctl import artifacts
from warpctl.cli.run_reference import RunReference
from warpctl.cli.table import table_text
from warpctl.cli.terminal import GREEN, spell
from warpctl.reports.summary import front_table

PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class FrontText:
    """The table and the sentence below it."""

    table: str
    best: str


def front_text(reference: RunReference) -> FrontText | None:
    """The newest front of this spec, None before its first report."""
    document = reference.front()
    if document is None:
        return None
    try:
        table = front_table(document)
    except (KeyError, TypeError, IndexError):  # a view of another version: not worth a failed command
        return None
    styles = {} if table.best_row is None else {table.best_row: GREEN}
    return FrontText(table_text(table.columns, table.rows, styles=styles), spell(table.best, sys.stdout))


def report_place(reference: RunReference) -> str:
    """Path, or URI, of the report page; "" when there is none of this spec yet."""
    run, store = reference.run, reference.store
    path = artifacts.report(run.metadata.namespace, run.metadata.name, PAGE)
    if not reference.shows_own_report() or store.stat(path) is None:
        return ""
    local = store.local_path(path)
    return str(local) if local is not None else store.uri(path)
