"""A proxy that reads the conversation between a client and the apiserver, and answers some requests itself.

with HttpProxy(cluster, user="admin") as proxy:         # ends TLS, and logs in above as the given user
    client = cluster.client_of(cluster.proxied_kubeconfig(proxy))
    proxy.fail(409, method="PATCH", path="/warpruns", times=2)
    proxy.fail(429, after=3, retry_after_seconds=1)     # the fourth request from here
    proxy.end_watches(410)                              # an ERROR event in every watch that is open
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.cluster.harness.proxy import reset

REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
"""metav1.Status.reason as the apiserver words it. A create that finds the name taken says AlreadyExists instead of Conflict."""


@dataclass
class Order:
    """A fault for some requests to come."""

    status: int
    method: str
    path: re.Pattern[str]
    after: int
    times: int
    reason: str
    message: str
    retry_after_seconds: int | None
    is_performed: bool

    def matches(self, method: str, target: str) -> bool:
        return self.method in ("", method) and self.path.search(target) is not None


@dataclass
class _State:
    lock: Any = field(default_factory=threading.Lock)
    orders: list[Order] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    answered: list[tuple[str, str, int]] = field(default_factory=list)
    watches: list[_Handler] = field(default_factory=list)


class HttpProxy:
    """Answers some requests itself and passes the others on; `seen` lists (method, target) of all."""

    def __init__(self, cluster: Any, *, user: str = "admin", groups: Sequence[str] = ()):
        authority = cluster.authority
        server = authority.server("fault-proxy", ["127.0.0.1", "localhost"])
        above = ssl.create_default_context(cafile=str(authority.pair.certificate))
        login = cluster.user_pair(user, groups)
        above.load_cert_chain(login.certificate, login.key)
        below = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        below.load_cert_chain(server.certificate, server.key)
        self._state = _State()
        handler = type(
            "Handler",
            (_Handler,),
            {"state": self._state, "upstream": (cluster.advertise_address, cluster.port), "context": above},
        )
        self._server = _Server(("127.0.0.1", 0), handler, below)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.cut_watches()
        self._thread.join()

    def fail(
        self,
        status: int,
        *,
        method: str = "",
        path: str = "",
        after: int = 0,
        times: int = 1,
        reason: str = "",
        message: str = "fault injected by the test",
        retry_after_seconds: int | None = None,
        is_performed: bool = False,
    ) -> None:
        """Answer with a status, as the apiserver would word it, `times` requests of this method whose target (path and query)
        contains the regular expression `path`, from the one after the next `after` on. With `is_performed` the apiserver
        does what was asked, and only the answer is lost. Orders are tried in the order in which they were given."""
        order = Order(
            status,
            method,
            re.compile(path),
            after,
            times,
            reason or REASONS.get(status, "Unknown"),
            message,
            retry_after_seconds,
            is_performed,
        )
        with self._state.lock:
            self._state.orders.append(order)

    def end_watches(self, code: int = 410) -> int:
        """Send an ERROR event into every open watch and end it; returns how many there were."""
        watches = self._take_watches()
        for watch in watches:
            watch.end_watch(code)
        return len(watches)

    def cut_watches(self) -> int:
        """Reset the connection of every open watch; returns how many there were."""
        watches = self._take_watches()
        for watch in watches:
            reset(watch.connection)
        return len(watches)

    def clear(self) -> None:
        """Forget orders and requests."""
        with self._state.lock:
            self._state.orders.clear()
            self._state.seen.clear()
            self._state.answered.clear()

    @property
    def seen(self) -> list[tuple[str, str]]:
        """(method, target) of all requests since `clear`."""
        with self._state.lock:
            return list(self._state.seen)

    @property
    def faults(self) -> list[tuple[str, str, int]]:
        """(method, target, status) of the requests that met a fault since `clear`."""
        with self._state.lock:
            return list(self._state.answered)

    @property
    def open_watches(self) -> int:
        with self._state.lock:
            return len(self._state.watches)

    def _take_watches(self) -> list[_Handler]:
        with self._state.lock:
            return list(self._state.watches)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: _State
    upstream: tuple[str, int]
    context: ssl.SSLContext

    def setup(self) -> None:
        self.request.settimeout(60)
        self.request.do_handshake()  # here and not in accept(): a client that is slow hinders nobody else
        self.request.settimeout(None)
        super().setup()
        self._writing = threading.Lock()
        self._has_ended = False
        self._upstream: socket.socket | None = None

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        order = self._order()
        if order is None:
            self._forward(body, answers=True)
            return
        if order.is_performed:
            self._forward(body, answers=False)
        self._refuse(order)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815 - http.server's names

    def _order(self) -> Order | None:
        with self.state.lock:
            self.state.seen.append((self.command, self.path))
            for order in self.state.orders:
                if not order.times or not order.matches(self.command, self.path):
                    continue
                if order.after:
                    order.after -= 1
                    continue
                order.times -= 1
                self.state.answered.append((self.command, self.path, order.status))
                return order
        return None

    def _refuse(self, order: Order) -> None:
        body = json.dumps(_status(order.status, order.reason, order.message, order.retry_after_seconds)).encode()
        self.send_response(order.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if order.retry_after_seconds is not None:
            self.send_header("Retry-After", str(order.retry_after_seconds))
        self.end_headers()
        self.wfile.write(body)

    def _forward(self, body: bytes, *, answers: bool) -> None:
        upstream = http.client.HTTPSConnection(*self.upstream, context=self.context, timeout=600)
        with contextlib.closing(upstream):
            dropped = ("connection", "accept-encoding", "content-length")
            headers = {key: value for key, value in self.headers.items() if key.lower() not in dropped}
            try:
                upstream.request(self.command, self.path, body or None, headers)
                response = upstream.getresponse()
            except OSError:  # the apiserver is down: the client sees that too
                reset(self.connection)
                self.close_connection = True
                return
            if not answers:
                response.read()
            elif "chunked" in response.headers.get("Transfer-Encoding", ""):
                self._upstream = upstream.sock
                self._stream(response)
            else:
                data = response.read()
                self._head(response)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

    def _head(self, response: http.client.HTTPResponse) -> None:
        self.send_response_only(response.status)
        for key, value in response.getheaders():
            if key.lower() not in ("connection", "content-length"):
                self.send_header(key, value)

    def _stream(self, response: http.client.HTTPResponse) -> None:
        """A watch, a followed log or a long list: piece by piece, as it comes."""
        is_watch = re.search(r"[?&]watch=(true|True|1)", self.path) is not None
        self._head(response)
        if is_watch:
            self.send_header("Connection", "close")  # it may be ended from another thread
        self.end_headers()
        if is_watch:
            with self.state.lock:
                self.state.watches.append(self)
        try:
            while data := response.read1(65536):
                self._chunk(data)
            self._chunk(b"")
        except (OSError, http.client.HTTPException):
            self.close_connection = True
            reset(self.connection)
        finally:
            if is_watch:
                with self.state.lock:
                    self.state.watches.remove(self)

    def _chunk(self, data: bytes) -> None:
        with self._writing:
            if self._has_ended:
                raise ConnectionAbortedError
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def end_watch(self, code: int) -> None:
        """From another thread: an ERROR event, then the end of the answer and of what it was copied from."""
        error = {
            "type": "ERROR",
            "object": _status(code, REASONS.get(code, "Unknown"), "fault injected by the test", None),
        }
        line = json.dumps(error).encode() + b"\n"
        with contextlib.suppress(OSError, ConnectionAbortedError):
            self._chunk(line)
            self._chunk(b"")
        with self._writing:
            self._has_ended = True
        with contextlib.suppress(OSError):
            if self._upstream is not None:
                self._upstream.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[_Handler], context: ssl.SSLContext):
        super().__init__(address, handler)
        self._context = context

    def get_request(self) -> tuple[Any, Any]:
        connection, address = self.socket.accept()
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, *_: object) -> None:
        pass  # a client that was cut off: that is what this is for


def _status(code: int, reason: str, message: str, retry_after_seconds: int | None) -> dict[str, Any]:
    details = {} if retry_after_seconds is None else {"details": {"retryAfterSeconds": retry_after_seconds}}
    kind = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return kind | {"message": message, "reason": reason, "code": code} | details
