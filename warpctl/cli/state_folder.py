"""What this machine keeps of a run: its attempts and logs, the spec that it last accepted, and who works on it now.

    <state root>/<12 hex of sha256 of the storage root>/<namespace>/<name>/
        spec.yaml       the last accepted spec, paths absolute
        engine.lock     locked by the `warpctl run` that works on it
        attempts/       see executors/local.py

Nothing here decides about results: with the folder deleted, a run goes on from what its store holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from warpctl.cli.output import yaml_text
from warpctl.errors import BusyError, SpecError, UserError
from warpctl.spec.warp_run import WarpRun


def state_root(given: str, environment: Mapping[str, str]) -> Path:
    """--state-dir or WARPCTL_STATE_DIR, else the place that the XDG base directory specification names."""
    if given:
        return Path(given).expanduser().absolute()
    base = environment.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "warpctl"


@dataclass(frozen=True)
class StateFolder:
    """The folder of one run; nothing is created before `lock`."""

    path: Path

    @classmethod
    def of(cls, run: WarpRun, *, storage_root: str, root: Path) -> StateFolder:
        """The folder of `run`, whose artifacts lie below `storage_root`."""
        digest = hashlib.sha256(storage_root.encode()).hexdigest()[:12]
        return cls(root / digest / run.metadata.namespace / run.metadata.name)

    @property
    def spec_file(self) -> Path:
        return self.path / "spec.yaml"

    def accepted(self) -> WarpRun | None:
        """The last accepted spec; None when there is none, or when this version of warpctl cannot read it."""
        from warpctl.spec.parse import parse_file

        if not self.spec_file.exists():
            return None
        try:
            return parse_file(self.spec_file)
        except SpecError:
            return None

    def accept(self, run: WarpRun) -> None:
        """Remember `run` as the last accepted spec."""
        document = run.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"status"})
        part = self.spec_file.with_name("spec.yaml.part")
        part.write_text(yaml_text(document), encoding="utf-8")
        part.replace(self.spec_file)

    def is_held(self) -> bool:
        """Whether some `warpctl run` of this machine works on the run now."""
        try:
            with (self.path / "engine.lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run on this machine; BusyError when somebody else does. The lock ends with the process, however it ends."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / "engine.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UserError(
                f"cannot write to the state folder {self.path}: {error.strerror}",
                hint="choose another with --state-dir or WARPCTL_STATE_DIR",
            ) from error
        with os.fdopen(descriptor, "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy(self.path, file.read()) from None
            holder = {"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
            file.truncate(0)
            file.write(json.dumps(holder))
            file.flush()
            yield


def find_state_folders(name: str, root: Path) -> list[StateFolder]:
    """Folders of runs with this name, or namespace/name, that this machine has accepted a spec of."""
    namespace, _, short = name.rpartition("/")
    if not short or "/" in namespace or any(part in ("..", ".", "*") for part in (namespace, short)):
        return []
    pattern = f"*/{namespace or '*'}/{short}/spec.yaml"
    return [StateFolder(found.parent) for found in sorted(root.glob(pattern))] if root.is_dir() else []


def known_run_names(root: Path) -> list[str]:
    """namespace/name of the runs that this machine has accepted a spec of."""
    return sorted({f"{found.parent.parent.name}/{found.parent.name}" for found in root.glob("*/*/*/spec.yaml")})


def _busy(path: Path, holder: str) -> BusyError:
    try:
        body = json.loads(holder)
        who = f"process {body['pid']}, since {body['since']}"
        stop = f"`kill {body['pid']}` (its workers save first)"
    except (ValueError, KeyError, TypeError):
        who, stop = "another process", "stop it"
    name = f"{path.parent.name}/{path.name}"
    return BusyError(
        f"another `warpctl run` works on {name} on this machine: {who}",
        hint=f"`warpctl status {name}` shows how far it is; {stop} to take over",
    )
