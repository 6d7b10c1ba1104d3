"""A reward over HTTP that counts its requests, tells a test of each, and can be away for a while."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class RewardEndpoint:
    """Scores a completion by its letters; `on_request` is called with the request's number before it is answered."""

    def __init__(self) -> None:
        self.num_requests = 0
        self.on_request: Callable[[int], None] = lambda _number: None
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/score"

    def start(self) -> None:
        """Listen, on the same port as before when it has been away."""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.num_requests += 1
                endpoint.on_request(endpoint.num_requests)
                scores = [text.count("e") - 0.1 * len(text) for text in body["completions"]]
                answer = json.dumps({"scores": scores}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_arguments: object) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_arguments: object) -> None:
                """A client that was killed while it waited is what is wanted here."""

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Be away: connections are refused from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
