"""The control plane can be broken and mended, and the proxies break what lies between."""

from __future__ import annotations

import json
import threading
import time

import kubernetes
import pytest
import urllib3

from tests.cluster.harness.http_proxy import HttpProxy
from tests.cluster.harness.proxy import TcpProxy

pytestmark = pytest.mark.cluster


def impatient(client: kubernetes.client.ApiClient) -> kubernetes.client.CoreV1Api:
    """Without urllib3's own retries: one call, one request."""
    client.rest_client.pool_manager.connection_pool_kw["retries"] = False
    return kubernetes.client.CoreV1Api(client)


@pytest.mark.parametrize("kill", [False, True])
def test_what_was_written_survives_the_apiservers_restart(api_cluster, namespace, kill) -> None:
    core = kubernetes.client.CoreV1Api(api_cluster.client())
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "kept"}, "data": {"a": "1"}})

    api_cluster.stop_apiserver(kill=kill)
    with pytest.raises(urllib3.exceptions.HTTPError):
        impatient(api_cluster.client()).read_namespaced_config_map("kept", namespace)
    api_cluster.start_apiserver()

    assert core.read_namespaced_config_map("kept", namespace).data == {"a": "1"}


def test_a_paused_etcd_answers_late(api_cluster, namespace) -> None:
    core = impatient(api_cluster.client())
    api_cluster.pause_etcd()
    try:
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            core.create_namespaced_config_map(namespace, {"metadata": {"name": "early"}}, _request_timeout=1)
    finally:
        api_cluster.resume_etcd()

    core.create_namespaced_config_map(namespace, {"metadata": {"name": "late"}}, _request_timeout=30)


def test_a_swallowing_proxy_is_half_open_until_new_connections_work_again(api_cluster) -> None:
    with TcpProxy(api_cluster) as proxy:
        path = api_cluster.proxied_kubeconfig(proxy)
        core = impatient(api_cluster.client_of(path))
        assert core.list_namespace(_request_timeout=10).items

        proxy.swallow()
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):  # silence: no reset and no end of file
            core.list_namespace(_request_timeout=1)
        proxy.restore()

        assert impatient(api_cluster.client_of(path)).list_namespace(_request_timeout=10).items


def test_a_watch_hears_nothing_when_the_proxy_swallows_and_ends_when_it_cuts(api_cluster, namespace) -> None:
    direct = kubernetes.client.CoreV1Api(api_cluster.client())
    heard: list[str] = []
    with TcpProxy(api_cluster) as proxy:
        core = impatient(api_cluster.client_of(api_cluster.proxied_kubeconfig(proxy)))
        response = core.list_namespaced_config_map(namespace, watch=True, _preload_content=False)

        def listen() -> None:
            try:
                heard.extend(line.decode() for line in response.stream() if b"while-" in line)
            except urllib3.exceptions.HTTPError as error:
                heard.append(type(error).__name__)

        listener = threading.Thread(target=listen)
        listener.start()
        direct.create_namespaced_config_map(namespace, {"metadata": {"name": "while-open"}})
        deadline = time.monotonic() + 30
        while not heard and time.monotonic() < deadline:
            time.sleep(0.05)
        proxy.swallow()
        direct.create_namespaced_config_map(namespace, {"metadata": {"name": "while-silent"}})
        time.sleep(1)
        still_listening = listener.is_alive()
        proxy.cut()
        listener.join(30)

    assert still_listening
    assert "while-open" in heard[0]
    assert heard[1:] == ["ProtocolError"]


def test_a_delaying_proxy_delays_each_way(api_cluster) -> None:
    with TcpProxy(api_cluster) as proxy:
        core = impatient(api_cluster.client_of(api_cluster.proxied_kubeconfig(proxy)))
        core.list_namespace()
        proxy.delay(0.5)
        start = time.monotonic()
        core.list_namespace()

        assert time.monotonic() - start >= 1.0  # no upper bound: machines may be busy


def test_a_refusing_proxy_lets_nobody_in(api_cluster) -> None:
    with TcpProxy(api_cluster) as proxy:
        core = impatient(api_cluster.client_of(api_cluster.proxied_kubeconfig(proxy)))
        core.list_namespace()
        proxy.refuse()
        # cut off within the handshake, the client says ApiException with status 0
        with pytest.raises((urllib3.exceptions.HTTPError, kubernetes.client.ApiException)) as raised:
            core.list_namespace(_request_timeout=10)
        assert not getattr(raised.value, "status", 0)
        assert proxy.connections == 0
        proxy.restore()

        assert core.list_namespace().items


@pytest.mark.parametrize(
    ("status", "reason"), [(409, "Conflict"), (410, "Expired"), (429, "TooManyRequests"), (500, "InternalError")]
)
def test_the_nth_matching_request_meets_the_fault_and_no_other(api_cluster, namespace, status, reason) -> None:
    with HttpProxy(api_cluster) as proxy:
        core = impatient(api_cluster.client_of(api_cluster.proxied_kubeconfig(proxy)))
        proxy.fail(status, method="POST", path="/configmaps", after=2, retry_after_seconds=7)
        outcomes: list[object] = []
        for number in range(4):
            core.list_namespaced_config_map(namespace)
            try:
                core.create_namespaced_config_map(namespace, {"metadata": {"name": f"x-{status}-{number}"}})
                outcomes.append("created")
            except kubernetes.client.ApiException as error:
                told = json.loads(error.body)
                outcomes.append((error.status, error.headers["Retry-After"], told["reason"], told["code"]))

    assert outcomes == ["created", "created", (status, "7", reason, status), "created"]
    assert proxy.faults == [("POST", f"/api/v1/namespaces/{namespace}/configmaps", status)]


def test_a_lost_answer_is_to_a_request_that_was_performed(api_cluster, namespace) -> None:
    with HttpProxy(api_cluster) as proxy:
        core = impatient(api_cluster.client_of(api_cluster.proxied_kubeconfig(proxy)))
        proxy.fail(500, method="POST", is_performed=True)
        with pytest.raises(kubernetes.client.ApiException, match="500"):
            core.create_namespaced_config_map(namespace, {"metadata": {"name": "made"}})

        assert core.read_namespaced_config_map("made", namespace).metadata.name == "made"


def test_the_http_proxy_logs_in_as_its_user(api_cluster) -> None:
    with HttpProxy(api_cluster, user="joe") as proxy:
        core = impatient(api_cluster.client_of(api_cluster.proxied_kubeconfig(proxy)))

        with pytest.raises(kubernetes.client.ApiException, match='User \\\\"joe\\\\" cannot list'):
            core.list_namespace()


def test_an_open_watch_gets_an_error_event_and_ends(api_cluster, namespace) -> None:
    with HttpProxy(api_cluster) as proxy:
        core = impatient(api_cluster.client_of(api_cluster.proxied_kubeconfig(proxy)))
        response = core.list_namespaced_secret(namespace, watch=True, _preload_content=False, resource_version="0")
        lines: list[bytes] = []
        listener = threading.Thread(target=lambda: lines.extend(response.stream()))
        listener.start()
        deadline = time.monotonic() + 30
        while not proxy.open_watches and time.monotonic() < deadline:
            time.sleep(0.05)

        assert proxy.end_watches(410) == 1
        listener.join(30)
        assert not listener.is_alive()
        assert core.list_namespaced_secret(namespace).items == []  # and the client's next request works

    assert b'"type": "ERROR"' in lines[-1]
    assert b'"code": 410' in lines[-1]
