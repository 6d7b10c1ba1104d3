"""The front at the end of a run and in `warpctl status`."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from warpctl import artifacts
from warpctl.cli.table import table_text
from warpctl.cli.terminal import GREEN, spell
from warpctl.reports.summary import front_table, load_front
from warpctl.spec.warp_run import WarpRun
from warpctl.storage.store import Store

PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class FrontText:
    """The table and the sentence below it."""

    table: str
    best: str


def front_text(run: WarpRun, store: Store) -> FrontText | None:
    """The newest front of a run, None before its first report."""
    document = load_front(store, namespace=run.metadata.namespace, name=run.metadata.name)
    if document is None:
        return None
    try:
        table = front_table(document)
    except (KeyError, TypeError, IndexError):  # a view of another version: not worth a failed command
        return None
    styles = {} if table.best_row is None else {table.best_row: GREEN}
    return FrontText(table_text(table.columns, table.rows, styles=styles), spell(table.best, sys.stdout))


def report_place(run: WarpRun, store: Store) -> str:
    """Path, or URI, of the report page; "" when there is none yet."""
    path = artifacts.report(run.metadata.namespace, run.metadata.name, PAGE)
    if store.stat(path) is None:
        return ""
    local = store.local_path(path)
    return str(local) if local is not None else store.uri(path)
