"""From a kubeconfig or a pod's service account to an `Api`, as kubectl would find it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from warpctl.errors import UserError
from warpctl.kube.api import Api

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubernetes.client import ApiClient

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class Connection:
    """An API server and the namespace that is meant when none is named."""

    api: Api
    namespace: str


def connect(
    environment: Mapping[str, str],
    *,
    kubeconfig: str = "",
    context: str = "",
    connections: int = 8,
    agent: str = "warpctl",
) -> Connection:
    """Connect with `kubeconfig` (else $KUBECONFIG, else ~/.kube/config), or inside a pod with its service account.

    UserError when there is neither; nothing is asked of the server yet. `connections` is the number kept open.
    """
    from kubernetes.config import kube_config

    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings are said by us, in one line
    wanted = kubeconfig or environment.get("KUBECONFIG", "")
    files = [file for file in wanted.split(":") if file] or [str(Path(kube_config.KUBE_CONFIG_DEFAULT_LOCATION))]
    if kubeconfig and not Path(kubeconfig).expanduser().exists():
        raise UserError(f"no kubeconfig at {kubeconfig}", hint="check --kubeconfig")
    if not wanted and "KUBERNETES_SERVICE_HOST" in environment and not context:
        return Connection(Api(_in_cluster(connections), agent), NAMESPACE_FILE.read_text().strip())
    found = [file for file in files if Path(file).expanduser().exists()]
    if not found:
        raise UserError(
            "no Kubernetes cluster is configured: there is no kubeconfig", hint="set KUBECONFIG or --kubeconfig"
        )
    return _from_files(":".join(found), context, connections, agent)


def _in_cluster(connections: int) -> ApiClient:
    from kubernetes import client
    from kubernetes.config import load_incluster_config

    configuration = client.Configuration()
    load_incluster_config(client_configuration=configuration)
    return _client(configuration, connections)


def _from_files(files: str, context: str, connections: int, agent: str) -> Connection:
    from kubernetes import client
    from kubernetes.config import ConfigException, kube_config

    configuration = client.Configuration()
    try:
        contexts, current = kube_config.list_kube_config_contexts(files)
        names = {each["name"]: each for each in contexts}
        if context and context not in names:
            raise UserError(
                f"no context {context!r} in {files}", hint=f"contexts: {', '.join(sorted(names)) or 'none'}"
            )
        kube_config.load_kube_config(
            config_file=files, context=context or None, client_configuration=configuration, persist_config=False
        )
    except ConfigException as error:
        raise UserError(f"cannot use the kubeconfig {files}: {error}", hint="try `kubectl cluster-info`") from error
    chosen = names[context] if context else current
    return Connection(Api(_client(configuration, connections), agent), chosen["context"].get("namespace") or "default")


def _client(configuration: object, connections: int) -> ApiClient:
    from kubernetes import client

    configuration.connection_pool_maxsize = connections  # type: ignore[attr-defined]  # the client has no types
    configuration.retries = False  # type: ignore[attr-defined]  # retries are ours: urllib3's repeat what may have been done
    return client.ApiClient(configuration)
