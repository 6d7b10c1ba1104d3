"""An HTTP proxy that breaks things on order, between a client and an object store.

with running_proxy("127.0.0.1", 4443) as proxy:
    proxy.fail(Fault(status=503), times=2)                       # the next two requests
    proxy.fail(Fault(lose_response=True), method="POST")         # stored, but the client never hears of it
"""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "proxy-connection")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a request; exactly one of these."""

    status: int = 0
    """Answer with this status and do not forward."""
    reset: bool = False
    """Reset the connection and do not forward."""
    lose_response: bool = False
    """Forward, then reset the connection in place of the answer."""
    cut_response: bool = False
    """Forward, then close the connection after half of the answer's body."""
    cut_request: bool = False
    """Forward half of the body and reset both connections: a client that dies while it uploads."""
    delay_seconds: float = 0.0
    """Wait, then forward."""
    alter_request: bool = False
    """Forward with one byte in the middle of the body changed."""
    alter_response: bool = False
    """Forward, then answer with one byte in the middle of the body changed."""
    forget_precondition: bool = False
    """Forward without If-None-Match and ifGenerationMatch: a store that cannot create once."""


@dataclass
class Order:
    """A fault for the next `times` requests with this method whose target contains `contains`."""

    fault: Fault
    method: str
    contains: str
    times: int


@dataclass
class FaultProxy:
    """A running proxy. `seen` lists (method, target) of all requests since `clear`."""

    port: int
    upstream: tuple[str, int]
    serialise_conditional: bool = False
    """Let one conditional PUT through at a time, for a server that tests and writes in two steps."""
    orders: list[Order] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    in_flight: int = 0
    """Requests that are being forwarded now."""
    most_in_flight: int = 0
    """The most of them at once since `clear`."""
    lock: Any = field(default_factory=threading.Lock)
    conditional: Any = field(default_factory=threading.Lock)
    share: float = 0.0
    """Of the requests without an order, this share meets one of `some_faults`, by chance."""
    some_faults: tuple[Fault, ...] = ()
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    num_failed: int = 0
    """By chance."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fail(self, fault: Fault, *, method: str = "", contains: str = "", times: int = 1) -> None:
        """Order a fault; orders are tried in the order in which they were given."""
        with self.lock:
            self.orders.append(Order(fault, method, contains, times))

    def clear(self) -> None:
        """Forget orders and requests."""
        with self.lock:
            self.orders.clear()
            self.seen.clear()
            self.share, self.num_failed, self.chance = 0.0, 0, random.Random(7)
            self.most_in_flight = self.in_flight

    def count(self, change: int) -> None:
        """One request more, or one less, is in flight."""
        with self.lock:
            self.in_flight += change
            self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def take(self, method: str, target: str) -> Fault | None:
        """The fault for this request, used up."""
        with self.lock:
            self.seen.append((method, target))
            for order in self.orders:
                if order.times and order.method in ("", method) and order.contains in target:
                    order.times -= 1
                    return order.fault
            if self.chance.random() < self.share:
                self.num_failed += 1
                return self.chance.choice(self.some_faults)
            return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        body = self._body()
        self.proxy.count(1)
        self.is_counted = True
        try:
            self._serve_with(body, self.proxy.take(self.command, self.path))
        finally:
            self._leave()

    def _leave(self) -> None:
        """No longer in flight: before the first byte of the answer, after which the client may send the next request."""
        if self.is_counted:
            self.is_counted = False
            self.proxy.count(-1)

    def _serve_with(self, body: bytes, fault: Fault | None) -> None:
        if fault is None:
            self._forward(body)
        elif fault.status:
            self._answer(fault.status, [("Content-Type", "text/plain")], b"fault injected")
        elif fault.reset:
            self._reset()
        elif fault.cut_request:
            self._send_half(body)
            self._reset()
        else:
            time.sleep(fault.delay_seconds)
            if fault.forget_precondition:
                del self.headers["If-None-Match"]
                self.path = self.path.replace("ifGenerationMatch=0", "")
            body = _altered(body) if fault.alter_request else body
            self._forward(body, lose=fault.lose_response, cut=fault.cut_response, alter=fault.alter_response)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815 - http.server's names

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():  # trailers
                pass
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _headers(self, length: int) -> list[tuple[str, str]]:
        kept = [(k, v) for k, v in self.headers.items() if k.lower() not in (*_HOP_BY_HOP, "content-length", "expect")]
        return [*kept, ("Content-Length", str(length)), ("Connection", "close")]

    def _forward(self, body: bytes, *, lose: bool = False, cut: bool = False, alter: bool = False) -> None:
        is_conditional = self.proxy.serialise_conditional and "If-None-Match" in self.headers
        with self.proxy.conditional if is_conditional else contextlib.nullcontext():
            upstream = http.client.HTTPConnection(*self.proxy.upstream, timeout=60)
            with contextlib.closing(upstream):
                upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for key, value in self._headers(len(body)):
                    upstream.putheader(key, value)
                upstream.endheaders(body)
                response = upstream.getresponse()
                data = response.read()
        if lose:
            self._reset()
            return
        headers = [(k, v) for k, v in response.getheaders() if k.lower() not in _HOP_BY_HOP]
        self._answer(response.status, headers, _altered(data) if alter else data, cut=cut)

    def _send_half(self, body: bytes) -> None:
        with socket.create_connection(self.proxy.upstream, timeout=60) as upstream:
            head = "".join(f"{key}: {value}\r\n" for key, value in self._headers(len(body)))
            upstream.sendall(f"{self.command} {self.path} HTTP/1.1\r\n{head}\r\n".encode() + body[: len(body) // 2])
            _linger_zero(upstream)

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, cut: bool = False) -> None:
        self._leave()
        self.send_response_only(status)
        has_body = self.command != "HEAD" and status not in (204, 304)
        for key, value in headers:
            if key.lower() != "content-length" or not has_body:
                self.send_header(key, value)
        if has_body:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if has_body:
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True

    def _reset(self) -> None:
        self._leave()
        _linger_zero(self.connection)
        self.close_connection = True


def _altered(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def _linger_zero(connection: socket.socket) -> None:
    """Closing this socket then sends RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # no shutdown(): it would send a FIN before the RST of a reset

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that went away are part of the tests."""


@contextlib.contextmanager
def running_proxy(host: str, port: int, *, serialise_conditional: bool = False) -> Iterator[FaultProxy]:
    """A proxy before host:port on a free port of this machine."""
    proxy = FaultProxy(0, (host, port), serialise_conditional)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
