"""`make cluster` and `make cluster-down`: a developer's cluster lives until it is taken down, and leaves no trace."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import kubernetes
import pytest

from tests.cluster.harness.clients import close_client
from tests.cluster.harness.process import ProcessId
from tests.cluster.harness.state import TOP

pytestmark = pytest.mark.cluster


def developer(temporary: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.cluster.harness.developer", *arguments],
        cwd=TOP,
        env=os.environ | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_developers_cluster_lives_until_it_is_taken_down_and_leaves_nothing(api_cluster, tmp_path: Path) -> None:
    if not api_cluster.owns_control_plane:
        pytest.skip("the cluster of WARPCTL_TEST_KUBECONFIG was started by somebody else")
    try:
        up = developer(tmp_path, "up", "api")
        assert up.returncode == 0, up.stderr
        said = re.match(r"export KUBECONFIG=(\S+)\n", up.stdout)
        assert said is not None, up.stdout

        client = kubernetes.config.new_client_from_config(said[1])
        assert len(kubernetes.client.CoreV1Api(client).list_node().items) == 3
        close_client(client)
        assert developer(tmp_path, "up", "api").stdout == up.stdout
        another = developer(tmp_path, "up", "node")
        assert another.returncode == 1
        assert "error: a cluster of the api tier is up\nhint: make cluster-down" in another.stderr
        processes = [ProcessId.read(file) for file in Path(said[1]).parent.glob("pids/*.json")]
        assert len(processes) == 5
    finally:
        down = developer(tmp_path, "down")

    assert (down.returncode, down.stdout) == (0, ""), down.stderr
    assert list(tmp_path.iterdir()) == []
    assert not any(process.is_alive() for process in processes if process)
