"""The views of one run: copies of the newest report's files under runs/<namespace>/<name>/report/, and which report they show.

One writer, the run's engine, so that a late report never covers a newer one. Readers of a view need nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from warpctl import artifacts
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store

SHOWN = "shown.json"


@dataclass
class Views:
    """The report views of a run."""

    store: Store
    namespace: str
    name: str
    _shown: str | None = None

    def shown(self) -> str:
        """Stage key of the report that the views show, "" when there is none; read once, then known."""
        if self._shown is None:
            try:
                self._shown = str(json.loads(self.store.read_or_none(self._path(SHOWN)) or b"{}").get("key", ""))
            except (ValueError, AttributeError):  # a view: made anew rather than complained about
                self._shown = ""
        return self._shown

    def show(self, kind: str, key: str) -> None:
        """Copy a published report's files, the page last among them, then note which report it is."""
        report = Artifact.load(self.store, kind, key)
        for name in sorted(report.names(), key=lambda name: name.endswith(".html")):
            self.store.write(self._path(name), report.read(name))
        self.store.write(self._path(SHOWN), json.dumps({"kind": kind, "key": key}).encode())
        self._shown = key

    def _path(self, name: str) -> str:
        return artifacts.report(self.namespace, self.name, name)
