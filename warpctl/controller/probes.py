"""/healthz, /readyz and /metrics for the kubelet and Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[bool, bytes]


def serve(port: int, routes: dict[str, Callable[[], Answer]]) -> ThreadingHTTPServer:
    """Serve `routes` on all addresses in a thread of its own; a False answer is 503. Port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server asks for
            route = routes.get(self.path)
            if route is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            is_good, body = route()
            self.send_response(HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
            """A probe every few seconds is no news."""

    server = ThreadingHTTPServer(("", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
    return server
