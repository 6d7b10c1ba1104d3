"""What the node tier needs of this machine: Linux, root, Debian's packages, some features of the kernel."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.servers.go_programs import cache_folder, locked

CNI_PLUGINS = Path("/usr/lib/cni")
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "buildah": "buildah",
    "conntrack": "conntrack",
    "ethtool": "ethtool",
    "socat": "socat",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
"""Program: the package that brings it."""


@functools.cache
def missing() -> str:
    """Why there can be no node here; empty where there can. Installs Debian packages where that is all that is missing."""
    if sys.platform != "linux":
        return f"containers need Linux, this is {sys.platform}"
    if os.geteuid() != 0:
        return "a kubelet needs root, this is user " + str(os.geteuid())
    return _install_packages() or _try_kernel()


def _install_packages() -> str:
    packages = _lacking()
    if not packages:
        return ""
    if shutil.which("apt-get") is None:
        return f"no apt-get here to install {' '.join(packages)}"
    cache_folder().mkdir(parents=True, exist_ok=True)
    with locked(cache_folder() / "apt.lock"):
        if not (packages := _lacking()):
            return ""
        print(f"installing {' '.join(packages)}", file=sys.stderr, flush=True)
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
            done = subprocess.run(["apt-get", *command], capture_output=True, text=True, check=False, env=quiet)
            if done.returncode:
                return f"apt-get {' '.join(command)} failed: {done.stderr.strip()[-300:]}"
    return ""


def _lacking() -> list[str]:
    lacking = {package for program, package in PACKAGES.items() if shutil.which(program) is None}
    if not (CNI_PLUGINS / "bridge").exists():
        lacking.add("containernetworking-plugins")
    return sorted(lacking)


def _try_kernel() -> str:
    """Namespaces, overlayfs, veth and iptables: tried, since configurations say little."""
    trial = """set -e
    mount -t tmpfs none /mnt
    mkdir /mnt/lower /mnt/upper /mnt/work /mnt/all
    mount -t overlay overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work /mnt/all
    ip link add try0 type veth peer name try1
    ip link add try2 type bridge
    iptables -t nat -A POSTROUTING -m comment --comment try -m statistic --mode random --probability 0.5 -j MASQUERADE
    iptables -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
    """
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--uts", "--ipc", "bash", "-c", trial]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"this kernel or container lacks something: {done.stderr.strip()[-300:]}" if done.returncode else ""
