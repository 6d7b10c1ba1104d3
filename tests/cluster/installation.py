"""The controller as an administrator installs it: an overlay of manifests/ with images, configuration and environment of this cluster."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.harness.node import NodeCluster
from tests.cluster.harness.state import TOP

SYSTEM = "warpctl-system"
DEPLOYMENT = "deployment/warpctl-controller"


@dataclass
class Installation:
    """`kubectl apply -k` of a kustomization in `folder` that says what differs here from manifests/overlays/cluster."""

    cluster: NodeCluster
    folder: Path
    config: dict[str, Any]

    def apply(self) -> None:
        """Install, or change what is installed; returns when the controller is ready."""
        repository, _, tag = self.cluster.slim_image().rpartition(":")
        environment = [{"name": "STORAGE_EMULATOR_HOST", "value": self.cluster.storage_endpoint}]
        patch = [{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": each} for each in environment]
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(TOP / "manifests" / "overlays" / "cluster", self.folder.resolve())],
            "images": [{"name": "ghcr.io/warpctl/slim", "newName": repository, "newTag": tag}],
            "configMapGenerator": [
                {
                    "name": "warpctl-controller-config",
                    "namespace": SYSTEM,
                    "behavior": "replace",
                    "files": ["config.yaml"],
                }
            ],
            "patches": [{"target": {"kind": "Deployment"}, "patch": json.dumps(patch)}],
        }
        (self.folder / "kustomization.yaml").write_text(json.dumps(kustomization))
        (self.folder / "config.yaml").write_text(json.dumps(self.config))
        self.cluster.kubectl("apply", "--server-side", "-k", str(self.folder))
        self.cluster.kubectl("rollout", "status", DEPLOYMENT, f"--namespace={SYSTEM}", "--timeout=100s")

    def said(self) -> str:
        """The controllers' last words, for a test that fails."""
        arguments = ("logs", DEPLOYMENT, f"--namespace={SYSTEM}", "--tail=60", "--all-pods=true", "--prefix=true")
        return self.cluster.kubectl(*arguments)

    def wait(self, is_true: Callable[[], object], what: str, seconds: float) -> None:
        """Until `is_true`; what the cluster was at is told when it never is."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if is_true():
                return
            time.sleep(0.5)  # each look is a process, on the machine that it looks at
        seen = [self.cluster.kubectl("get", "warpruns,jobs,pods", "--all-namespaces", "-o", "wide"), self.said()]
        raise AssertionError(f"not within {seconds} s: {what}\n" + "\n".join(seen))
