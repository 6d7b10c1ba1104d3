"""The machine that a node runs on: namespaces of its own for network, mounts, processes and host name.

What runs in it cannot be seen outside, two machines do not disturb each other, and killing its first process ends it all: kubelet,
containers, mounts, iptables rules. It writes to /var and /run as a kubelet does, but those are its own.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.harness.process import Daemon

START_SECONDS = 30
INIT = """set -e
state=$1
mount --make-rprivate /
mount --make-rshared /
mkdir -p $state/var/upper $state/var/work
mount -t overlay overlay -o lowerdir=/var,upperdir=$state/var/upper,workdir=$state/var/work /var
mount -t tmpfs tmpfs /run
hostname $2
ip link set lo up
sysctl -qw net.ipv4.ip_forward=1
touch $state/machine-is-up
# The first process of a machine buries the dead: containers whose shim has gone.
sleep infinity &
while :; do wait || true; done
"""
"""Script of the first process; $1: the state's folder, $2: the host name."""


class Machine:
    """Namespaces held by one process, linked to this host by a pair of addresses."""

    def __init__(self, state: Path, host_name: str, *, slot: int):
        self._state = state
        self.host_name = host_name
        self.link = f"warpctl{slot}"
        self.host_address = f"10.88.{slot}.1"
        self.address = f"10.88.{slot}.2"
        self.pod_range = f"10.244.{slot}.0/24"
        namespaces = ("--net", "--mount", "--uts", "--ipc", "--pid", "--mount-proc")
        command = ["unshare", *namespaces, "--fork", "--kill-child", "bash", "-c", INIT, "init", str(state), host_name]
        self.holder = Daemon(state, "machine", command)

    def start(self) -> None:
        self.holder.start()
        deadline = time.monotonic() + START_SECONDS
        while not (self._state / "machine-is-up").exists():
            if time.monotonic() > deadline or not self.holder.is_alive():
                raise RuntimeError(f"the node's namespaces do not come up:\n{self.holder.log_tail()}")
            time.sleep(0.02)
        self._connect()

    def _connect(self) -> None:
        _run("ip", "link", "set", f"{self.link}n", "netns", str(self.pid), "name", "eth0")
        _run(*self.command("ip", "address", "add", f"{self.address}/30", "dev", "eth0"))
        _run(*self.command("ip", "link", "set", "eth0", "up"))
        _run(*self.command("ip", "route", "add", "default", "via", self.host_address))
        _run("ip", "route", "add", self.pod_range, "via", self.address)

    @property
    def pid(self) -> int:
        """Of the machine's first process, as this host counts."""
        found = self.holder.process_id
        assert found is not None
        return int(Path(f"/proc/{found.pid}/task/{found.pid}/children").read_text().split()[0])

    def command(self, *command: str) -> list[str]:
        """The command line that runs a command in the machine."""
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--uts", "--ipc", "--pid", "--", *command]


def take_slot() -> int:
    """A number that no other machine on this host has: its link is made here, and making it again would fail."""
    for slot in range(1, 200):
        names = (f"warpctl{slot}", f"warpctl{slot}n")
        made = subprocess.run(
            ["ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1]],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode == 0:
            _run("ip", "address", "add", f"10.88.{slot}.1/30", "dev", names[0])
            _run("ip", "link", "set", names[0], "up")
            return slot
        if "exists" not in made.stderr:
            raise RuntimeError(f"ip link add: {made.stderr}")
    raise RuntimeError("200 machines are up on this host")


def _run(*command: str | Sequence[str]) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
