"""A cluster leaves nothing behind, however its owner ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.harness.process import ProcessId
from tests.cluster.harness.state import TOP

pytestmark = pytest.mark.cluster

OWNER = """
import sys, time
from tests.cluster.harness.control_plane import ApiCluster
with ApiCluster(fake_nodes=0) as cluster:
    if sys.argv[1] == "reaper-too":  # first, for whoever reads the folder's name may kill us at once
        cluster._reaper._process.kill()
        cluster._reaper._process.wait()
    print(cluster.state, flush=True)
    if sys.argv[1] == "raise":
        raise SystemExit(3)
    time.sleep(600)
"""
PARTS = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"}


@pytest.fixture
def environment(api_cluster, tmp_path) -> dict[str, str]:
    """Clusters of a folder of their own: a sweep here does not meet those of others."""
    if not api_cluster.owns_control_plane:
        pytest.skip("the cluster of WARPCTL_TEST_KUBECONFIG was started by somebody else")
    return os.environ | {"TMPDIR": str(tmp_path)}


def start_owner(environment: dict[str, str], how: str) -> tuple[subprocess.Popen[str], Path, dict[str, ProcessId]]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, how], cwd=TOP, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    state = Path(owner.stdout.readline().strip())
    found = {}
    for file in (state / "pids").glob("*.json"):
        process = ProcessId.read(file)
        assert process is not None
        found[file.stem] = process
    assert found, "it has started no cluster"
    return owner, state, found


def end(owner: subprocess.Popen[str], number: int) -> None:
    owner.send_signal(number)
    owner.wait()
    assert owner.stdout is not None
    owner.stdout.close()


def await_end(processes: dict[str, ProcessId], state: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not state.exists() and not any(process.is_alive() for process in processes.values()):
            return
        time.sleep(0.05)
    pytest.fail(f"alive: {[name for name, process in processes.items() if process.is_alive()]}; {state.exists()=}")


def test_kill_9_of_the_test_process_ends_every_process_and_removes_the_folder(environment) -> None:
    owner, state, processes = start_owner(environment, "sleep")
    assert set(processes) == PARTS
    assert all(process.is_alive() for process in processes.values())

    end(owner, signal.SIGKILL)

    await_end(processes, state)


def test_the_next_cluster_sweeps_what_was_left_where_the_reaper_died_too(environment) -> None:
    owner, state, processes = start_owner(environment, "reaper-too")
    end(owner, signal.SIGKILL)
    time.sleep(0.5)
    # Those that need no other to live: a busy machine has ended one of the others by itself.
    left = {name for name, process in processes.items() if process.is_alive()}
    assert {"etcd", "kube-apiserver"} <= left

    sweep = "from tests.cluster.harness.state import sweep; print(sweep())"
    done = subprocess.run(
        [sys.executable, "-c", sweep], cwd=TOP, env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == f"['{state.name}']"
    await_end(processes, state)


def test_an_error_in_the_body_ends_them_too(environment) -> None:
    owner = subprocess.run(
        [sys.executable, "-c", OWNER, "raise"],
        cwd=TOP,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert owner.returncode == 3
    assert not Path(owner.stdout.strip()).exists()


def test_a_pid_that_belongs_to_somebody_else_by_now_is_left_alone(tmp_path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        file = tmp_path / "old.json"
        file.write_text(json.dumps({"pid": other.pid, "started": "1"}))
        stale = ProcessId.read(file)
        assert stale is not None
        assert not stale.is_alive()
        stale.kill()

        assert ProcessId.of(other.pid).is_alive()
        other.communicate(b"\n")
        assert other.returncode == 0
