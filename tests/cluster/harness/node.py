"""A cluster with a node that runs containers: the control plane, and as root containerd, kubelet, kube-proxy and CoreDNS on a
machine of its own (machine.py), with an image registry and an object store beside it.

    with NodeCluster() as cluster:
        cluster.slim_image()          # builds and pushes images/slim where its content has changed
        cluster.storage_endpoint      # fake-gcs-server, at one address for pods and tests

Ready in about 20 seconds once everything is built.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.cluster.harness import binaries, images, prerequisites
from tests.cluster.harness.control_plane import ApiCluster
from tests.cluster.harness.machine import Machine, take_slot
from tests.cluster.harness.ports import free_port
from tests.cluster.harness.process import Daemon
from tests.servers.go_programs import fake_gcs_server

NODE = "node-0"
BUCKET = "warp"


class NodeCluster(ApiCluster):
    """An ApiCluster whose pods run. RuntimeError where prerequisites.missing() says why not."""

    tier = "node"

    def __init__(self, *, name: str | None = None, fake_nodes: int = 0):
        super().__init__(name=name, fake_nodes=fake_nodes)

    def build(self) -> None:
        if reason := prerequisites.missing():
            raise RuntimeError(f"no node tier here: {reason}")
        binaries.build_all(binaries.NODE_TIER)
        fake_gcs_server()
        images.prepare()

    def _start(self) -> None:
        slot = take_slot()
        (self.state / "link").write_text(f"warpctl{slot}")
        self.machine = Machine(self.state, NODE, slot=slot)
        self.advertise_address = self.machine.host_address
        self.machine.start()
        self._daemons["machine"] = self.machine.holder
        super()._start()
        self._start_servers()
        self._start_node()

    # What tests use

    @property
    def registry(self) -> str:
        """host:port of the image registry, for pushing from here; pods name images by images.REGISTRY."""
        return f"{self.machine.host_address}:{self._registry_port}"

    @property
    def storage_endpoint(self) -> str:
        """STORAGE_EMULATOR_HOST for pods and for tests; the bucket is node.BUCKET."""
        return f"http://{self.machine.host_address}:{self._storage_port}"

    def slim_image(self) -> str:
        """The image of controller, import, merge and report, as pods name it."""
        return images.ensure("slim", self.registry)

    def worker_image(self) -> str:
        """The image of rl and evaluate, with torch: minutes to build and gigabytes to push the first time."""
        return images.ensure("worker", self.registry)

    def base_image(self) -> str:
        """Debian with Python alone, for tests of the cluster itself."""
        return images.ensure_base(self.registry)

    def crictl(self, *arguments: str) -> str:
        """Output of ctr in containerd's namespace k8s.io on the node."""
        address = str(self._folder / "containerd.sock")
        command = self.machine.command("ctr", f"--address={address}", "--namespace=k8s.io", *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    # How it is made

    @property
    def _folder(self) -> Path:
        folder = self.state / "node"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def _bind_address(self) -> str:
        return self.machine.host_address

    def _server_names(self) -> list[str]:
        return [*super()._server_names(), self.machine.host_address]

    def _apiserver_flags(self) -> tuple[str, ...]:
        login = self.authority.user("kube-apiserver-kubelet-client", ("system:masters",))
        return (
            f"--kubelet-client-certificate={login.certificate}",
            f"--kubelet-client-key={login.key}",
            f"--kubelet-certificate-authority={self.authority.pair.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
        )

    def _start_servers(self) -> None:
        """On this host: they are the world outside the cluster."""
        self._registry_port = free_port(self.machine.host_address)
        self._storage_port = free_port(self.machine.host_address)
        registry = Daemon(self.state, "registry", images.registry_command(self.state, self.registry))
        storage = self.storage_endpoint.removeprefix("http://")
        store = Daemon(
            self.state,
            "fake-gcs-server",
            [
                *(str(fake_gcs_server()), "-scheme", "http", "-host", self.machine.host_address),
                *("-port", str(self._storage_port), "-public-host", storage, "-external-url", self.storage_endpoint),
                *("-backend", "filesystem", "-filesystem-root", str(self.state / "buckets"), "-log-level", "error"),
            ],
        )
        (self.state / "buckets" / BUCKET).mkdir(parents=True)
        for daemon in (registry, store):
            daemon.start()
            self._daemons[daemon.name] = daemon

    def _start_node(self) -> None:
        for group in _cgroup_folders(f"warpctl-{self.state.name}"):
            _make_cgroup(group)
        self._containerd()
        self._on_machine("kubelet", binaries.KUBELET, *self._kubelet_flags())
        self._on_machine("kube-proxy", binaries.KUBE_PROXY, *self._proxy_flags())
        self._on_machine("coredns", binaries.COREDNS, f"-conf={self._corefile()}")
        images.push_pause(self.registry)
        self.await_true(lambda: self._ready_nodes() > self._fake_nodes, "the node is ready", part="kubelet")

    def _on_machine(self, name: str, program: binaries.Program | str, *flags: str) -> None:
        path = program if isinstance(program, str) else str(program.path())
        self._daemons[name] = Daemon(self.state, name, self.machine.command(path, *flags))
        self._daemons[name].start()

    def _user(self, user: str, groups: tuple[str, ...] = ()) -> Path:
        return self.user_kubeconfig(user, groups)

    def _containerd(self) -> None:
        folder = self._folder
        hosts = folder / "certs.d" / images.REGISTRY
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(f'[host."http://{self.registry}"]\ncapabilities = ["pull", "resolve"]\n')
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "pods0",
                    "isGateway": True,
                    "ipMasq": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": self.machine.pod_range}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": str(folder / "cni-addresses"),
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
        (folder / "net.d").mkdir()
        (folder / "net.d" / "10-pods.conflist").write_text(json.dumps(network))
        configuration = folder / "containerd.toml"
        configuration.write_text(
            _CONTAINERD.format(folder=folder, plugins=prerequisites.CNI_PLUGINS, pause=images.PAUSE)
        )
        self._on_machine("containerd", "containerd", f"--config={configuration}")
        socket = folder / "containerd.sock"
        self.await_true(socket.exists, "containerd listens", part="containerd")

    def _kubelet_flags(self) -> tuple[str, ...]:
        folder = self._folder
        server = self.authority.server(f"kubelet-{NODE}", [self.machine.address, NODE])
        (folder / "resolv.conf").write_text("")
        configuration = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "x509": {"clientCAFile": str(self.authority.pair.certificate)},
                "webhook": {"enabled": True},
                "anonymous": {"enabled": False},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(server.certificate),
            "tlsPrivateKeyFile": str(server.key),
            "containerRuntimeEndpoint": f"unix://{folder / 'containerd.sock'}",
            "address": self.machine.address,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/warpctl-{self.state.name}",
            "failSwapOn": False,
            "failCgroupV1": False,
            "enforceNodeAllocatable": [],
            "localStorageCapacityIsolation": False,
            "clusterDNS": [self.machine.address],
            "clusterDomain": "cluster.local",
            "resolvConf": str(folder / "resolv.conf"),
            "oomScoreAdj": 0,
            # A developer's disk is full at times; that is not what is tested here.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "podLogsDir": str(folder / "pod-logs"),
            "nodeStatusUpdateFrequency": "5s",
            "syncFrequency": "10s",
            "serializeImagePulls": False,
            "shutdownGracePeriod": "0s",
        }
        path = folder / "kubelet.json"
        path.write_text(json.dumps(configuration))
        return (
            f"--config={path}",
            f"--kubeconfig={self._user(f'system:node:{NODE}', ('system:nodes',))}",
            f"--hostname-override={NODE}",
            f"--node-ip={self.machine.address}",
            f"--root-dir={folder / 'kubelet'}",
            f"--cert-dir={folder / 'kubelet-pki'}",
        )

    def _proxy_flags(self) -> tuple[str, ...]:
        return (
            f"--kubeconfig={self._user('system:kube-proxy')}",
            f"--hostname-override={NODE}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={self.machine.pod_range}",
            "--conntrack-max-per-core=0",
            "--conntrack-min=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
            "--oom-score-adj=0",
        )

    def _corefile(self) -> Path:
        path = self._folder / "Corefile"
        login = self._user("coredns", ("system:masters",))
        path.write_text(_COREFILE.format(address=self.machine.address, kubeconfig=login))
        return path


def _cgroup_folders(name: str) -> list[Path]:
    """One for each controller of cgroup v1, else the only one of v2."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top / name]
    return [
        folder / name
        for folder in top.iterdir()
        if folder.is_dir() and not folder.is_symlink() and folder.name != "unified"
    ]


def _make_cgroup(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for setting in ("cpuset.cpus", "cpuset.mems"):  # empty in a new one of v1, and then nobody may enter it
        file = folder / setting
        if file.exists() and not file.read_text().strip() and not (folder / "cgroup.controllers").exists():
            file.write_text((folder.parent / setting).read_text())


_CONTAINERD = """version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-run"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# Without CAP_SYS_RESOURCE no sandbox could lower its score: each would die with "can't get final child's PID from pipe".
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{folder}/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{folder}/certs.d"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
"""

_COREFILE = """.:53 {{
    bind {address}
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig} test
        pods insecure
        ttl 1
    }}
}}
"""
