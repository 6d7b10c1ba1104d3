"""RUN on the command line: a spec file, or the name of a run that this machine knows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from warpctl.cli.first_contact import open_store_in_reach
from warpctl.cli.state_folder import StateFolder, find_state_folders, known_run_names, state_root
from warpctl.engine import Engine
from warpctl.errors import UserError
from warpctl.executors.local import LocalExecutor
from warpctl.executors.places import Machine
from warpctl.plan.progress import summarise
from warpctl.plan.stages import stages
from warpctl.reports.summary import load_front
from warpctl.spec.parse import parse_file, resolve_relative_uris
from warpctl.spec.stage_input import StageKind
from warpctl.spec.status import RunStatus
from warpctl.spec.warp_run import WarpRun
from warpctl.storage.store import Store

_OBSERVING = Machine(cores=1)


@dataclass(frozen=True)
class RunReference:
    """A run, its store and its state folder; `typed` is how the user called it."""

    typed: str
    run: WarpRun
    store: Store
    folder: StateFolder

    @property
    def is_in_cluster(self) -> bool:
        """Whether a cluster's controller drives it."""
        return False

    def look(self, now: datetime) -> RunStatus:
        """The run as it is now. Changes nothing."""
        return summarise(self.run, self.engine().observe(), now)

    def events_text(self) -> str:
        """What a cluster has noted about it; "" outside of one."""
        return ""

    @property
    def spec_path(self) -> Path:
        """The file that the spec was read from."""
        return Path(self.typed) if _is_file(self.typed) else self.folder.spec_file

    def engine(self) -> Engine:
        """An engine for looking only: it has no machine to start anything on."""
        executor = LocalExecutor(self.run, self.store, self.folder.path, _OBSERVING, environment={})
        return Engine(self.run, executor, self.store)

    def shows_own_report(self) -> bool:
        """Whether the run's views show a report of this very spec, not of an earlier one with the same name."""
        observed = self.engine().observe()
        graph = stages(self.run, observed.imported())
        return observed.shown_report in {s.key for s in graph.stages.values() if s.kind is StageKind.REPORT}

    def front(self) -> dict[str, Any] | None:
        """The newest front of this very spec, None before its first report."""
        metadata = self.run.metadata
        return (
            load_front(self.store, namespace=metadata.namespace, name=metadata.name)
            if self.shows_own_report()
            else None
        )


def resolve(typed: str, state_dir: str) -> RunReference:
    """Find the run. UserError (exit 2) when there is none, or more than one; SpecError when its spec is wrong."""
    root = state_root(state_dir, os.environ)
    if _is_file(typed):
        run = resolve_relative_uris(parse_file(typed), Path(typed).absolute().parent)
        store = open_store_in_reach(run.spec.storage.uri)
        return RunReference(typed, run, store, StateFolder.of(run, storage_root=store.root, root=root))
    found = find_state_folders(typed, root)
    if not found:
        known = known_run_names(root)
        hint = f"runs of this machine: {', '.join(known[:8])}" if known else "this machine has no runs yet"
        raise UserError(f'there is no spec file and no run called "{typed}"', hint=f"{hint}; or give a spec file")
    if len(found) > 1:
        places = ", ".join(f"{folder.path.parent.name}/{folder.path.name}" for folder in found)
        raise UserError(
            f'"{typed}" is the name of {len(found)} runs: {places}',
            hint="give namespace/name, or the spec file where the same name is used with several stores",
        )
    run = parse_file(found[0].spec_file)
    return RunReference(typed, run, open_store_in_reach(run.spec.storage.uri), found[0])


def _is_file(typed: str) -> bool:
    """A file that exists, or what can only be meant as one. A folder may have the name of a run."""
    return Path(typed).is_file() or typed.endswith((".yaml", ".yml", ".json")) or typed.startswith((".", "/", "~"))
