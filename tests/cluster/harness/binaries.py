"""The programs of a cluster, built from pinned Go modules: tests/cluster/tools/<module>/go.mod and go.sum.

    python -m tests.cluster.harness.binaries api     # 8 minutes from nothing on two cores; at once when the cache has them
    python -m tests.cluster.harness.binaries node    # those and the programs of a node

Kubernetes is 1.34: its kubelet is the last to accept cgroup v1 and containerd 1.6, which is what Debian 12 has.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.servers.go_programs import build, cached_program, fake_gcs_server

MODULES = Path(__file__).parents[1] / "tools"
STAMPED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
"""Packages whose variables hold the version that `kubectl version` and /version tell."""


@dataclass(frozen=True)
class Program:
    """A package of one of the modules."""

    name: str
    module: str
    package: str

    @property
    def stamp(self) -> str:
        return kubernetes_stamp() if self.module == "kubernetes" else ""

    def path(self) -> Path:
        """Path of the built program; builds it where needed."""
        return build(self.name, self.package, module=MODULES / self.module, stamp=self.stamp)

    def is_built(self) -> bool:
        return cached_program(self.name, module=MODULES / self.module, stamp=self.stamp).exists()


def kubernetes_version() -> str:
    """For example v1.34.4: what the module pins."""
    found = re.search(
        r"^require k8s\.io/kubernetes (\S+)", (MODULES / "kubernetes" / "go.mod").read_text(), re.MULTILINE
    )
    if found is None:
        raise RuntimeError(f"{MODULES}/kubernetes/go.mod pins no k8s.io/kubernetes")
    return found[1]


def kubernetes_stamp() -> str:
    """Linker flags that write the version into a program, as Kubernetes' own build does."""
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X {package}.{name}={value}" for package in STAMPED for name, value in values.items())


def _kubernetes(name: str) -> Program:
    return Program(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}")


ETCD = Program("etcd", "etcd", "go.etcd.io/etcd/server/v3")
APISERVER = _kubernetes("kube-apiserver")
CONTROLLER_MANAGER = _kubernetes("kube-controller-manager")
SCHEDULER = _kubernetes("kube-scheduler")
KUBECTL = _kubernetes("kubectl")
KWOK = Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok")
KUBELET = _kubernetes("kubelet")
KUBE_PROXY = _kubernetes("kube-proxy")
COREDNS = Program("coredns", "coredns", "github.com/coredns/coredns")
REGISTRY = Program("registry", "registry", "github.com/distribution/distribution/v3/cmd/registry")

API_TIER = (ETCD, APISERVER, CONTROLLER_MANAGER, SCHEDULER, KUBECTL, KWOK)
NODE_TIER = (*API_TIER, KUBELET, KUBE_PROXY, COREDNS, REGISTRY)


def build_all(programs: tuple[Program, ...]) -> None:
    """Build what is missing, one after the other: each uses all cores."""
    for program in programs:
        program.path()


if __name__ == "__main__":
    build_all(NODE_TIER if sys.argv[1:] == ["node"] else API_TIER)
    if sys.argv[1:] == ["node"]:
        fake_gcs_server()
