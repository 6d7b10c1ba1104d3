"""A Kubernetes control plane of real programs, without root: etcd, apiserver, controller-manager, scheduler, and KWOK's nodes.

    with ApiCluster() as cluster:
        core = kubernetes.client.CoreV1Api(cluster.client())

Ready in about 6 seconds, 400 MB. Several may live side by side: ports are free ones, files are in a folder of their own.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import kubernetes

from tests.cluster.harness import binaries, kwok
from tests.cluster.harness.clients import close_client
from tests.cluster.harness.kubeconfig import write_kubeconfig
from tests.cluster.harness.pki import Authority, Pair
from tests.cluster.harness.ports import free_port
from tests.cluster.harness.process import Daemon
from tests.cluster.harness.state import Reaper, destroy, give_away, is_given_away, new_state, sweep

START_SECONDS = 120
SERVICE_RANGE = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"
GROUPS = {"admin": ("system:masters",)}
"""Groups of users which are known by name."""
FAST_CLIENT = ("--kube-api-qps=2000", "--kube-api-burst=4000")
"""The programs' own limits (20 requests/s) would be what a benchmark of ours measures."""


class ApiCluster:
    """A control plane of its own. Every method is for the process that started it."""

    owns_control_plane = True
    tier = "api"
    advertise_address = "127.0.0.1"

    def __init__(self, *, name: str | None = None, fake_nodes: int = 3):
        self._name = name
        self._fake_nodes = fake_nodes
        self._reaper: Reaper | None = None
        self._clients: list[kubernetes.client.ApiClient] = []
        self._daemons: dict[str, Daemon] = {}
        self.state = Path()
        self.port = 0

    # Life

    def __enter__(self) -> Self:
        sweep()
        self.build()
        self.state = new_state(self._name)
        self._reaper = Reaper(self.state)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            close_client(client)
        self._clients.clear()
        if not is_given_away(self.state):
            for daemon in reversed(self._daemons.values()):
                daemon.stop(kill=True)
            destroy(self.state)
        if self._reaper is not None:
            self._reaper.close()
            self._reaper = None

    def detach(self) -> None:
        """Let the cluster live on after this process, until somebody destroys its state."""
        give_away(self.state)
        for daemon in self._daemons.values():
            daemon.forget()

    def build(self) -> None:
        """Build the programs that the cache lacks."""
        binaries.build_all(binaries.API_TIER)

    def _start(self) -> None:
        self._make_certificates()
        self._define_control_plane()
        self.start_etcd()
        self.start_apiserver()
        # Earlier they would end: the rights of the system's own users are written by the apiserver once it is ready.
        for name in ("kube-controller-manager", "kube-scheduler", "kwok"):
            self.start(name)
        self._make_fake_nodes()

    # What tests use

    @property
    def kubeconfig(self) -> Path:
        """Of the administrator."""
        return self.state / "admin.kubeconfig"

    @property
    def server(self) -> str:
        return f"https://{self.advertise_address}:{self.port}"

    @property
    def authority(self) -> Authority:
        return Authority(self.state / "pki")

    def client(self, user: str = "admin", groups: Sequence[str] = ()) -> kubernetes.client.ApiClient:
        """A client that is logged in as a user; it is closed with the cluster."""
        path = self.kubeconfig if user == "admin" else self.user_kubeconfig(user, groups)
        return self.client_of(path)

    def client_of(self, kubeconfig: Path) -> kubernetes.client.ApiClient:
        """A client for a kubeconfig of this cluster, for example one that leads through a proxy."""
        client = kubernetes.config.new_client_from_config(str(kubeconfig))
        self._clients.append(client)
        return client

    def user_kubeconfig(self, name: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for a user with no rights but those that RBAC gives to the name and the groups."""
        pair = self.user_pair(name, groups)
        path = self.state / "users" / f"{pair.key.stem}.kubeconfig"
        return write_kubeconfig(path, server=self.server, authority=self.authority.pair.certificate, user=pair)

    def user_pair(self, name: str, groups: Sequence[str] = ()) -> Pair:
        """The client certificate of a user."""
        return self.authority.user(name, groups or GROUPS.get(name, ()))

    def service_account_kubeconfig(self, namespace: str, name: str, *, seconds: int = 3600) -> Path:
        """A kubeconfig with a token of a service account, as a pod would have it."""
        core = kubernetes.client.CoreV1Api(self.client())
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        token = core.create_namespaced_service_account_token(name, namespace, body).status.token
        path = self.state / "users" / f"{namespace}-{name}.kubeconfig"
        authority = self.authority.pair.certificate
        return write_kubeconfig(path, server=self.server, authority=authority, user=token, namespace=namespace)

    def proxied_kubeconfig(self, proxy: Any, user: str = "admin", groups: Sequence[str] = ()) -> Path:
        """A kubeconfig whose server is a proxy of proxy.py."""
        pair = self.user_pair(user, groups)
        path = self.state / "users" / f"{pair.key.stem}-proxy-{proxy.port}.kubeconfig"
        server = f"https://127.0.0.1:{proxy.port}"
        return write_kubeconfig(path, server=server, authority=self.authority.pair.certificate, user=pair)

    def kubectl(self, *arguments: str, kubeconfig: Path | None = None, stdin: str = "") -> str:
        """Standard output of the built kubectl; RuntimeError with what it said where it fails."""
        command = [str(binaries.KUBECTL.path()), f"--kubeconfig={kubeconfig or self.kubeconfig}", *arguments]
        home = os.environ | {"HOME": str(self.state)}  # its discovery cache
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False, env=home)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def requests(self, user: str = "") -> list[dict[str, Any]]:
        """The apiserver's audit events so far, one a finished request, of one user or all people and service accounts.

        Each has verb, objectRef (resource, subresource, name, namespace, apiGroup), user.username, responseStatus.code,
        userAgent, requestURI. The cluster's own components are left out.
        """
        path = self.state / "audit.log"
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("}")]  # the last may be half written
        return [event for event in events if user in ("", event["user"]["username"])]

    def stop_apiserver(self, *, kill: bool = False) -> None:
        """End the apiserver, gracefully or by SIGKILL."""
        self._daemons["kube-apiserver"].stop(kill=kill)

    def start_apiserver(self) -> None:
        """Start it on the same port and wait until it is ready."""
        self.start("kube-apiserver")
        self.await_ready()

    def pause_etcd(self) -> None:
        """SIGSTOP: connections stay, answers do not come."""
        self._daemons["etcd"].signal(signal.SIGSTOP)

    def resume_etcd(self) -> None:
        self._daemons["etcd"].signal(signal.SIGCONT)

    def start_etcd(self) -> None:
        self.start("etcd")

    def start(self, name: str) -> None:
        """Start a part: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok."""
        if not self._daemons[name].is_alive():
            self._daemons[name].start()

    def stop(self, name: str, *, kill: bool = False) -> None:
        """End a part, for example kwok where a test plays the kubelet itself."""
        self._daemons[name].stop(kill=kill)

    def await_ready(self) -> None:
        """Until /readyz of the apiserver says ok."""
        self.await_true(lambda: self.get_raw("/readyz") == "ok", "the apiserver is ready", part="kube-apiserver")

    def await_true(
        self, condition: Callable[[], Any], what: str, *, part: str = "", seconds: float = START_SECONDS
    ) -> Any:
        """Poll until the condition gives something true, and return that; the log of the part explains a failure."""
        deadline = time.monotonic() + seconds
        problem: Exception | None = None
        while time.monotonic() < deadline:
            for daemon in self._daemons.values():
                if daemon.pid_file.exists() and not daemon.is_alive():
                    raise RuntimeError(f"{daemon.name} has ended:\n{daemon.log_tail()}")
            try:
                if found := condition():
                    return found
            except (OSError, http.client.HTTPException, kubernetes.client.ApiException) as error:
                problem = error
            time.sleep(0.05)
        log = self._daemons[part].log_tail() if part else ""
        raise RuntimeError(f"waited {seconds} s in vain until {what}: {problem}\n{log}")

    def get_raw(self, path: str) -> str:
        """GET a path as administrator; empty where the status is not 200."""
        pair = self.user_pair("admin")
        context = ssl.create_default_context(cafile=str(self.authority.pair.certificate))
        context.load_cert_chain(pair.certificate, pair.key)
        connection = http.client.HTTPSConnection(self.advertise_address, self.port, context=context, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.read().decode() if response.status == 200 else ""

    # How it is made

    def _server_names(self) -> list[str]:
        cluster = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        return ["127.0.0.1", "localhost", SERVICE_ADDRESS, *cluster]

    def _make_certificates(self) -> None:
        self.port = free_port()
        authority = self.authority
        authority.server("kube-apiserver", self._server_names())
        authority.service_account_keys()
        for user in ("system:kube-controller-manager", "system:kube-scheduler"):
            self.user_kubeconfig(user)
        pair = self.user_pair("admin")
        write_kubeconfig(self.kubeconfig, server=self.server, authority=authority.pair.certificate, user=pair)

    def _component_kubeconfig(self, user: str) -> Path:
        return self.user_kubeconfig(user)

    def _define(
        self, name: str, program: binaries.Program, *flags: str, environment: dict[str, str] | None = None
    ) -> None:
        command = [str(program.path()), *flags]
        self._daemons[name] = Daemon(self.state, name, command, environment=environment)

    def _define_control_plane(self) -> None:
        pki = self.authority
        server = pki.server("kube-apiserver", self._server_names())
        accounts = pki.service_account_keys()
        etcd, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._define(
            "etcd",
            binaries.ETCD,
            f"--data-dir={self.state / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # nothing here outlives the machine
            "--quota-backend-bytes=4294967296",
            "--log-level=warn",
        )
        audit = self.state / "audit-policy.json"
        audit.write_text(json.dumps(_audit_policy()))
        self._define(
            "kube-apiserver",
            binaries.APISERVER,
            f"--etcd-servers={etcd}",
            f"--secure-port={self.port}",
            f"--bind-address={self._bind_address}",
            f"--advertise-address={self.advertise_address}",
            f"--client-ca-file={pki.pair.certificate}",
            f"--tls-cert-file={server.certificate}",
            f"--tls-private-key-file={server.key}",
            f"--service-account-key-file={accounts.certificate}",
            f"--service-account-signing-key-file={accounts.key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--audit-policy-file={audit}",
            f"--audit-log-path={self.state / 'audit.log'}",
            "--shutdown-delay-duration=0s",
            *self._apiserver_flags(),
        )
        controller_manager = self._component_kubeconfig("system:kube-controller-manager")
        self._define(
            "kube-controller-manager",
            binaries.CONTROLLER_MANAGER,
            f"--kubeconfig={controller_manager}",
            f"--authentication-kubeconfig={controller_manager}",
            f"--authorization-kubeconfig={controller_manager}",
            f"--root-ca-file={pki.pair.certificate}",
            f"--service-account-private-key-file={accounts.key}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            *FAST_CLIENT,
        )
        scheduler = self._component_kubeconfig("system:kube-scheduler")
        scheduler_config = self.state / "scheduler.json"
        scheduler_config.write_text(json.dumps(_scheduler_configuration(scheduler)))
        self._define(
            "kube-scheduler",
            binaries.SCHEDULER,
            f"--config={scheduler_config}",
            f"--authentication-kubeconfig={scheduler}",
            f"--authorization-kubeconfig={scheduler}",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
        )
        self._define(
            "kwok",
            binaries.KWOK,
            f"--kubeconfig={self.user_kubeconfig('kwok', ('system:masters',))}",
            f"--config={kwok.STAGES}",
            f"--server-address=127.0.0.1:{free_port()}",
        )

    @property
    def _bind_address(self) -> str:
        return "127.0.0.1"

    def _apiserver_flags(self) -> tuple[str, ...]:
        return ()

    def _make_fake_nodes(self) -> None:
        core = kubernetes.client.CoreV1Api(self.client())
        for number in range(self._fake_nodes):
            core.create_node(kwok.kwok_node(f"kwok-{number}"))
        self.await_true(lambda: self._ready_nodes() >= self._fake_nodes, "KWOK's nodes are ready", part="kwok")

    def _ready_nodes(self) -> int:
        nodes = kubernetes.client.CoreV1Api(self.client()).list_node().items
        return sum(
            any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions or ())
            for node in nodes
        )


def _audit_policy() -> dict[str, Any]:
    own = ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "kwok", "system:kube-proxy"]
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            {"level": "None", "users": own},
            {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
            {"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*"]},
            {"level": "Metadata"},
        ],
    }


def _scheduler_configuration(kubeconfig: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig), "qps": 2000, "burst": 4000},
        "leaderElection": {"leaderElect": False},
    }
