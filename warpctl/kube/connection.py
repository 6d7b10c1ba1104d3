"""From a kubeconfig or a pod's service account to an `Api`, as kubectl would find it."""

from __future__ import annotations

import logging
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from warpctl.errors import UserError
from warpctl.kube.api import Api

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubernetes.client import ApiClient, Configuration

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
    from kubernetes.client import Configuration
    from kubernetes.config import ConfigException, kube_config

    configuration = Configuration()
    try:
        contexts, current = kube_config.list_kube_config_contexts(files)
        names = {each["name"]: each for each in contexts}
        if context and context not in names:
            raise UserError(
                f"no context {context!r} in {files}", hint=f"contexts: {', '.join(sorted(names)) or 'none'}"
            )
        # The library writes what a kubeconfig embeds, a user's private key too, into files until the process ends well.
        with tempfile.TemporaryDirectory(prefix="warpctl-kubeconfig-") as folder:
            try:
                kube_config.load_kube_config(
                    config_file=files,
                    context=context or None,
                    client_configuration=configuration,
                    persist_config=False,
                    temp_file_path=folder,
                )
                client = _client(configuration, connections)
                if any(Path(file).parent == Path(folder) for file in _tls_files(configuration)):
                    client.rest_client.pool_manager.connection_pool_kw.update(_tls_in_memory(configuration))
            finally:
                _forget_files(folder)
    except (ConfigException, ssl.SSLError) as error:
        raise UserError(f"cannot use the kubeconfig {files}: {error}", hint="try `kubectl cluster-info`") from error
    chosen = names[context] if context else current
    return Connection(Api(client, agent), chosen["context"].get("namespace") or "default")


def _forget_files(folder: str) -> None:
    """The library would offer them again to the next that loads the same kubeconfig."""
    from kubernetes.config import kube_config

    kept = kube_config._temp_files  # noqa: SLF001  # there is no other door
    for content in [content for content, file in kept.items() if Path(file).parent == Path(folder)]:
        del kept[content]


def _tls_files(configuration: Configuration) -> list[str]:
    files = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
    return [file for file in files if file]


def _tls_in_memory(configuration: Configuration) -> dict[str, object]:
    """What the connections of a pool need instead of the names of files."""
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return {"ssl_context": context, "ca_certs": None, "cert_file": None, "key_file": None}


def _client(configuration: object, connections: int) -> ApiClient:
    from kubernetes import client

    configuration.connection_pool_maxsize = connections  # type: ignore[attr-defined]  # the client has no types
    configuration.retries = False  # type: ignore[attr-defined]  # retries are ours: urllib3's repeat what may have been done
    return client.ApiClient(configuration)
