"""Where an `Api` comes from, whom it trusts, and what it leaves behind."""

from __future__ import annotations

import json
import ssl
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cluster.harness.kubeconfig import write_kubeconfig
from tests.cluster.harness.pki import Authority
from warpctl.errors import UserError, WarpctlError
from warpctl.kube.connection import connect
from warpctl.kube.resources import JOBS


class Handler(BaseHTTPRequestHandler):
    """A cluster without Jobs."""

    def do_GET(self) -> None:
        body = json.dumps({"items": [], "metadata": {"resourceVersion": "1"}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


@pytest.fixture
def server(authority: Authority) -> Iterator[str]:
    """A server that asks for a client certificate of its own authority."""
    pair = authority.server("server", ["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.pair.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pair.certificate, pair.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{listening.server_port}"
        listening.shutdown()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_key_inside_a_kubeconfig_is_in_no_file_while_the_connection_lives(authority, server, temporary, tmp_path):
    """Whatever ends the process, nobody finds it afterwards."""
    kubeconfig = write_kubeconfig(
        tmp_path / "config", server=server, authority=authority.pair.certificate, user=authority.user("alice")
    )

    for _ in range(2):  # the library remembers files between the two
        connection = connect({}, kubeconfig=str(kubeconfig))
        assert list(temporary.iterdir()) == []
        assert connection.api.list(JOBS, connection.namespace).items == []


def test_a_server_of_another_authority_is_not_trusted(authority, server, temporary, tmp_path):
    other = Authority(tmp_path / "other")
    kubeconfig = write_kubeconfig(
        tmp_path / "config", server=server, authority=other.pair.certificate, user=authority.user("alice")
    )

    with pytest.raises(WarpctlError, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
        connect({}, kubeconfig=str(kubeconfig)).api.list(JOBS, "default")


def test_a_certificate_that_is_none_is_told(authority, server, temporary, tmp_path):
    pair = authority.user("alice")
    pair.certificate.write_text("not a certificate")
    kubeconfig = write_kubeconfig(tmp_path / "config", server=server, authority=authority.pair.certificate, user=pair)

    with pytest.raises(UserError, match="cannot use the kubeconfig"):
        connect({}, kubeconfig=str(kubeconfig))
    assert list(temporary.iterdir()) == []
