"""STORAGE|SPEC on the command line: a store by its URI, or the one that a spec names."""

from __future__ import annotations

from pathlib import Path

from warpctl.cli.first_contact import open_store_in_reach
from warpctl.errors import UserError
from warpctl.spec.parse import parse_file, resolve_relative_uris
from warpctl.storage.store import Store


def open_store(typed: str) -> Store:
    """UserError for a local folder that is not there: most likely a slip of the pen."""
    if typed.endswith((".yaml", ".yml", ".json")) or Path(typed).is_file():
        run = resolve_relative_uris(parse_file(typed), Path(typed).absolute().parent)
        return open_store_in_reach(run.spec.storage.uri)
    store = open_store_in_reach(typed)
    folder = store.local_path("x")
    if folder is not None and not folder.parent.is_dir():
        raise UserError(f"there is no store at {typed}", hint="give the value of spec.storage.uri, or a spec file")
    return store
