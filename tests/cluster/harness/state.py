"""Folders that hold a cluster's state: who owns them, and how what a dead owner left is swept away.

    <temporary folder>/warpctl-clusters-<uid>/<name>/owner.json     the process whose end is the end of the cluster
                                                   /pids/           one file a process
                                                   /logs/, /pki/, /etcd/ ...

A cluster without an owner (`make cluster`) lives until `make cluster-down`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from tests.cluster.harness.process import ProcessId

TOP = Path(__file__).parents[3]


def states_folder() -> Path:
    """Where the clusters of this user are; short, for sockets live below it."""
    folder = Path(tempfile.gettempdir()) / f"warpctl-clusters-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def new_state(name: str | None = None) -> Path:
    """An empty folder that belongs to this process."""
    folder = states_folder() / (name or uuid.uuid4().hex[:8])
    folder.mkdir(mode=0o700)
    ProcessId.of(os.getpid()).write(folder / "owner.json")
    return folder


def give_away(state: Path) -> None:
    """The cluster outlives this process."""
    (state / "owner.json").unlink(missing_ok=True)
    (state / "detached").touch()


def is_given_away(state: Path) -> bool:
    """Whether nobody's end is the end of this cluster."""
    return (state / "detached").exists()


def sweep() -> list[str]:
    """Destroy what owners left that have died; returns the names."""
    swept = []
    for state in sorted(states_folder().iterdir()):
        owner = ProcessId.read(state / "owner.json")
        if state.is_dir() and not is_given_away(state) and owner is not None and not owner.is_alive():
            destroy(state)
            swept.append(state.name)
    return swept


def destroy(state: Path) -> None:
    """End every process that has a pid file in the folder, then remove cgroups, mounts and the folder itself."""
    deadline = time.monotonic() + 30
    while alive := [found for found in _processes(state) if found.is_alive()]:
        for found in alive:
            found.kill(signal.SIGKILL)
        if time.monotonic() > deadline:
            raise RuntimeError(f"{state}: {alive} do not end")
        time.sleep(0.02)
    _remove_cgroups(f"warpctl-{state.name}")
    if (state / "link").exists():  # gone with the machine already, unless that never came up
        subprocess.run(["ip", "link", "delete", (state / "link").read_text()], capture_output=True, check=False)
    for _ in range(3):  # what dies on its own account may still write
        shutil.rmtree(state, ignore_errors=True)
        if not state.exists():
            return
        time.sleep(0.2)
    shutil.rmtree(state)


def _processes(state: Path) -> list[ProcessId]:
    return [found for path in sorted((state / "pids").glob("*.json")) if (found := ProcessId.read(path))]


def _remove_cgroups(name: str) -> None:
    """A kubelet's cgroups stay when it ends. They are empty folders by now, the innermost is removed first."""
    for top in [*Path("/sys/fs/cgroup").glob(f"*/{name}"), *Path("/sys/fs/cgroup").glob(name)]:
        for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
            _remove_cgroup(folder)
        _remove_cgroup(top)


def _remove_cgroup(folder: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            for pid in (folder / "cgroup.procs").read_text().split():  # a container's, whose node has gone
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return


class Reaper:
    """A process that destroys the cluster once this one has gone, however it went: it sees its pipe close."""

    def __init__(self, state: Path):
        reading, self._writing = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.harness.reaper", str(state)],
            cwd=TOP,
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(reading)

    def close(self) -> None:
        """Let it do its work, where any is left."""
        os.close(self._writing)
        self._process.wait()
