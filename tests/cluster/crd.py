"""The WarpRun definition in a test's cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warpctl.kube.api import Api
from warpctl.kube.errors import ClusterError
from warpctl.kube.resources import WARPRUNS

CRD = Path(__file__).parents[2] / "manifests" / "crd.yaml"


def install_crd(cluster: Any) -> None:
    """Apply manifests/crd.yaml and wait until WarpRuns are served."""
    cluster.kubectl("apply", "--server-side", "-f", str(CRD))
    api = Api(cluster.client())

    def is_served() -> bool:
        try:
            return bool(api.list(WARPRUNS).resource_version)
        except ClusterError:
            return False

    cluster.await_true(is_served, "WarpRuns are served")
