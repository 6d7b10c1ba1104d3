"""Processes that a cluster is made of: started with a log and a pid file, and ended whatever becomes of the test process.

A pid file holds the start time as well, for a pid alone may belong to somebody else by the time that it is read. Three things
end what was started: leaving the with-body, the reaper (a process of ours that sees the test process die, kill -9 included),
and the next cluster, which first sweeps what a dead owner left.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 20


def started_at(pid: int) -> str:
    """A text that is another one for every process which ever had this pid; empty where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self").exists():
            return ""
        found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return found.stdout.strip()
    return "" if fields[0] == "Z" else fields[19]  # starttime, in ticks since the machine started


@dataclass(frozen=True)
class ProcessId:
    """A pid and when it was given out."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        return cls(pid, started_at(pid))

    @classmethod
    def read(cls, path: Path) -> ProcessId | None:
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError):
            return None  # gone meanwhile, or its writer died in mid-write: then nothing had been started
        return cls(found["pid"], found["started"])

    def write(self, path: Path) -> None:
        partial = path.with_suffix(".tmp")
        partial.write_text(json.dumps({"pid": self.pid, "started": self.started}))
        partial.replace(path)

    def is_alive(self) -> bool:
        return bool(self.started) and started_at(self.pid) == self.started

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process and its group, if it is still the same one."""
        if not self.is_alive():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)


class Daemon:
    """One server of a cluster; its output is in <state>/logs/<name>.log."""

    def __init__(self, state: Path, name: str, command: Sequence[str], *, environment: Mapping[str, str] | None = None):
        self.name = name
        self.command = [*map(str, command)]
        self.environment = dict(environment or {})
        self.pid_file = state / "pids" / f"{name}.json"
        self.log_file = state / "logs" / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for file in (self.pid_file, self.log_file):
            file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | self.environment,
                start_new_session=True,  # Ctrl-C is for the test process, which then ends these in their order
            )
        ProcessId.of(self._process.pid).write(self.pid_file)

    @property
    def process_id(self) -> ProcessId | None:
        return ProcessId.read(self.pid_file)

    def is_alive(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        found = self.process_id
        return found is not None and found.is_alive()

    def signal(self, number: int) -> None:
        if self.is_alive() and (found := self.process_id):
            found.kill(number)

    def stop(self, *, kill: bool = False) -> None:
        """End it: gracefully within 20 seconds, or at once."""
        found = self.process_id
        if found is not None:
            found.kill(signal.SIGCONT)  # a stopped process does not hear SIGTERM
            found.kill(signal.SIGKILL if kill else signal.SIGTERM)
            if not self._await_end(found, STOP_SECONDS):
                found.kill(signal.SIGKILL)
                self._await_end(found, STOP_SECONDS)
        if self._process is not None:
            self._process.wait()  # our own child: else it stays a zombie
            self._process = None
        self.pid_file.unlink(missing_ok=True)

    @staticmethod
    def _await_end(found: ProcessId, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not found.is_alive():
                return True
            time.sleep(0.02)
        return False

    def forget(self) -> None:
        """It is nobody's child from now on, so nobody warns that it still runs."""
        if self._process is not None:
            self._process.returncode = 0
            self._process = None

    def log_tail(self, characters: int = 3000) -> str:
        return self.log_file.read_text(errors="replace")[-characters:] if self.log_file.exists() else ""
