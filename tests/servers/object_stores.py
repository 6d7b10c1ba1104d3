"""Real object stores on this machine: fake-gcs-server and moto, each behind a fault proxy.

Both are processes of their own and end with the with-body, also after a failed test.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from tests.servers.fault_proxy import FaultProxy, running_proxy
from tests.servers.go_programs import fake_gcs_server

START_SECONDS = 60


@dataclass(frozen=True)
class ObjectStore:
    """A server with one bucket; clients go through `proxy` when `environment` is set."""

    scheme: str
    bucket: str
    environment: dict[str, str]
    proxy: FaultProxy


@contextlib.contextmanager
def running_fake_gcs(bucket: str = "warp") -> Iterator[ObjectStore]:
    """fake-gcs-server in memory; upload sessions point back to the proxy, so faults reach every request."""
    port = _free_port()
    with running_proxy("127.0.0.1", port) as proxy:
        host = f"127.0.0.1:{proxy.port}"
        command = [
            *(str(fake_gcs_server()), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1"),
            *("-port", str(port), "-public-host", host, "-external-url", proxy.endpoint, "-log-level", "error"),
        ]
        with _running(command, port):
            _request(port, "POST", "/storage/v1/b?project=test", json.dumps({"name": bucket}).encode())
            yield ObjectStore("gs", bucket, {"STORAGE_EMULATOR_HOST": proxy.endpoint}, proxy)


@contextlib.contextmanager
def running_moto(bucket: str = "warp") -> Iterator[ObjectStore]:
    """moto's S3. It looks and then writes, in threads, so the proxy lets conditional writes through one by one."""
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with _running(command, port), running_proxy("127.0.0.1", port, serialise_conditional=True) as proxy:
        _request(port, "PUT", f"/{bucket}", b"")
        yield ObjectStore("s3", bucket, environment | {"AWS_ENDPOINT_URL": proxy.endpoint}, proxy)


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    """Run a server until the body ends; its output shows up where it failed to start."""
    with tempfile.TemporaryFile() as output:  # not a pipe: nobody reads it, and a full pipe stops the server
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            _await(process, port, command[0], output)
            yield
        finally:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], port: int, name: str, output: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            output.seek(0)
            raise RuntimeError(f"{name} ended with {process.returncode}:\n{output.read()[-2000:]!r}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{name} does not listen on port {port} after {START_SECONDS} seconds")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _request(port: int, method: str, target: str, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, target, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status >= 300:
            raise RuntimeError(f"{method} {target}: {response.status} {response.read()!r}")
