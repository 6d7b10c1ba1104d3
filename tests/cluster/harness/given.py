"""A cluster that somebody else keeps (WARPCTL_TEST_KUBECONFIG), behind the same words as our own."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import kubernetes
import pytest

from tests.cluster.harness.clients import close_client


class GivenCluster:
    """Tests run as whoever its kubeconfig logs in; those that must break its control plane or make users are skipped."""

    owns_control_plane = False
    tier = "given"

    def __init__(self, kubeconfig: Path):
        if not kubeconfig.is_file():
            raise FileNotFoundError(f"WARPCTL_TEST_KUBECONFIG names {kubeconfig}, which is not a file")
        self.kubeconfig = kubeconfig
        self._clients: list[kubernetes.client.ApiClient] = []
        self._stack = contextlib.ExitStack()
        self.state = Path()

    def __enter__(self) -> Self:
        self.state = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            close_client(client)
        self._stack.close()

    def client(self, user: str = "admin", groups: Sequence[str] = ()) -> kubernetes.client.ApiClient:
        if user != "admin":
            _not_ours()
        return self.client_of(self.kubeconfig)

    def client_of(self, kubeconfig: Path) -> kubernetes.client.ApiClient:
        client = kubernetes.config.new_client_from_config(str(kubeconfig))
        self._clients.append(client)
        return client

    def __getattr__(self, name: str) -> Any:
        """Whatever else ApiCluster can do needs its processes or its authority's key."""
        if name.startswith("_"):
            raise AttributeError(name)
        return _not_ours()


def _not_ours() -> Any:
    pytest.skip("the cluster of WARPCTL_TEST_KUBECONFIG is not ours to break, nor to make users in")
