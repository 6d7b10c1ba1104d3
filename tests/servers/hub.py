"""A model hub on this machine: the part of the Hugging Face API that imports use, with the faults that networks have.

    with running_hub() as hub:
        hub.commit("lab/tiny", {"config.json": b"{}"})
        ... HF_ENDPOINT=hub.endpoint, hf://lab/tiny

Large files (*.safetensors, *.parquet) answer with a redirect to a "CDN" on another host name, as the real hub does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.servers.hub_uploads import answer_post, put_large

LFS_SUFFIXES = (".safetensors", ".parquet", ".bin")


@dataclass
class Repository:
    """Commits (id -> files) and branches (name -> commit id); `token` is needed to read it when it is not empty."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    token: str = ""
    is_gated: bool = False


@dataclass
class Faults:
    """What shall go wrong, each once per entry, keyed by the end of the request's path."""

    unavailable: dict[str, int] = field(default_factory=dict)
    """This many requests are answered with 503."""
    cut_after: dict[str, int] = field(default_factory=dict)
    """The connection is closed after this many bytes, once."""
    hold_second_read: dict[str, threading.Event] = field(default_factory=dict)
    """The second time that the file is sent (first its header is read), half of it waits for this event."""
    wrong_bytes: set[str] = field(default_factory=set)
    """The last byte of the file is flipped."""


@dataclass(frozen=True)
class Request:
    """One request as the server saw it."""

    method: str
    path: str
    host: str
    authorization: str
    range: str


class Hub:
    """Repositories by "models/owner/name" or "datasets/owner/name"."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults = Faults()
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.reads: dict[str, int] = {}
        self.holding = threading.Event()
        self.ignores_ranges = False
        self.port = 0
        self.write_token = ""
        """Who may create and commit; nobody while it is empty."""
        self.uploaded: dict[str, bytes] = {}
        self.created: dict[str, dict[str, Any]] = {}
        """Repositories made through the API, with what was asked for."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def commit(self, repo: str, files: dict[str, bytes], *, branch: str = "main", kind: str = "models") -> str:
        """Replace the branch's files; the new commit's id."""
        repository = self.repositories.setdefault(f"{kind}/{repo}", Repository())
        text = "".join(f"{name}:{hashlib.sha1(data).hexdigest()}" for name, data in sorted(files.items()))
        commit = hashlib.sha1(f"{repo}{len(repository.commits)}{text}".encode()).hexdigest()
        repository.commits[commit] = dict(files)
        repository.branches[branch] = commit
        return commit

    def downloads(self, name: str) -> list[Request]:
        """Requests for the content of a file (redirects not counted twice)."""
        with self.lock:
            return [one for one in self.requests if "/resolve/" in one.path and one.path.endswith(f"/{name}")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silent."""

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def do_POST(self) -> None:
        status, body = answer_post(
            self.hub,
            unquote(urlsplit(self.path).path),
            self._take_body(),
            self.headers.get("Authorization", ""),
            is_large=lambda name: name.endswith(LFS_SUFFIXES),
            commit=self.hub.commit,
        )
        self._send(status, json.dumps(body).encode(), {"Content-Type": "application/json"}, send_body=True)

    def do_PUT(self) -> None:
        status, body = put_large(self.hub, self.path, self._take_body())
        self._send(status, json.dumps(body).encode(), send_body=True)

    def _take_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, *, send_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = self.headers
        seen = Request(
            self.command, path, headers.get("Host", ""), headers.get("Authorization", ""), headers.get("Range", "")
        )
        with self.hub.lock:
            self.hub.requests.append(seen)
            is_down = self._take_unavailable(path)
        if is_down:
            self._send(503, b"busy", send_body=send_body)
            return
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            self._send_info(parts, send_body=send_body)
        elif parts[0] == "cdn":
            self._send_file(parts, 1, send_body=send_body)
        else:
            self._send_file(parts, 0, send_body=send_body)

    def _take_unavailable(self, path: str) -> bool:
        for end, count in self.hub.faults.unavailable.items():
            if path.endswith(end) and count > 0:
                self.hub.faults.unavailable[end] = count - 1
                return True
        return False

    def _repository(self, key: str, *, send_body: bool) -> Repository | None:
        """The repository, or None after an error was sent."""
        repository = self.hub.repositories.get(key)
        if repository is None:
            self._send(401, b"", {"X-Error-Code": "RepoNotFound"}, send_body=send_body)
            return None
        if repository.token and self.headers.get("Authorization") != f"Bearer {repository.token}":
            code = "GatedRepo" if repository.is_gated else "RepoNotFound"
            self._send(401, b"", {"X-Error-Code": code}, send_body=send_body)
            return None
        return repository

    def _send_info(self, parts: list[str], *, send_body: bool) -> None:
        _, kind, owner, name, *rest = parts
        repository = self._repository(f"{kind}/{owner}/{name}", send_body=send_body)
        if repository is None:
            return
        revision = "/".join(rest[1:]) or "main"
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, send_body=send_body)
            return
        siblings = [_sibling(file, data) for file, data in repository.commits[commit].items()]
        body = {"id": f"{owner}/{name}", "sha": commit, "siblings": siblings, "private": False, "tags": []}
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"}, send_body=send_body)

    def _send_file(self, parts: list[str], skip: int, *, send_body: bool) -> None:
        is_cdn = bool(skip)
        parts = parts[skip:]
        kind = "models"
        if parts[0] == "datasets":
            kind, parts = "datasets", parts[1:]
        owner, name, _, revision, *rest = parts
        file = "/".join(rest)
        if is_cdn:  # the signed address of the real one: no token needed
            repository: Repository | None = self.hub.repositories[f"{kind}/{owner}/{name}"]
        else:
            repository = self._repository(f"{kind}/{owner}/{name}", send_body=send_body)
        if repository is None:
            return
        commit = repository.branches.get(revision, revision)
        data = repository.commits.get(commit, {}).get(file)
        if data is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, send_body=send_body)
            return
        is_lfs = file.endswith(LFS_SUFFIXES)
        extra = {"X-Repo-Commit": commit, "ETag": f'"{_etag(file, data)}"', "Accept-Ranges": "bytes"}
        if is_lfs and not is_cdn:
            address = f"http://localhost:{self.hub.port}/cdn{self.path}"
            extra |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": extra["ETag"], "Location": address}
            self._send(302, b"", extra, send_body=send_body)
            return
        if file in self.hub.faults.wrong_bytes:
            data = data[:-1] + bytes([data[-1] ^ 255])
        status, start = 200, 0
        if (asked := self.headers.get("Range")) and not self.hub.ignores_ranges:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            status = 206
            extra["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        with self.hub.lock:
            reads = self.hub.reads[file] = self.hub.reads.get(file, 0) + 1
        event = self.hub.faults.hold_second_read.get(file) if reads == 2 else None
        cut = self.hub.faults.cut_after.pop(file, None)
        self._send(status, data[start:], extra, send_body=send_body, cut=cut, hold=event)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        send_body: bool,
        cut: int | None = None,
        hold: threading.Event | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not send_body:
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            body = body[:cut]
            if hold is not None:
                half = len(body) // 2
                self.wfile.write(body[:half])
                self.wfile.flush()
                body = body[half:]
                self.hub.holding.set()
                hold.wait(60)
            self.wfile.write(body)
            self.wfile.flush()
        if cut is not None:
            self.close_connection = True


def _sibling(file: str, data: bytes) -> dict[str, object]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    sibling: dict[str, object] = {"rfilename": file, "size": len(data), "blobId": blob}
    if file.endswith(LFS_SUFFIXES):
        sibling["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return sibling


def _etag(file: str, data: bytes) -> str:
    digest = hashlib.sha256 if file.endswith(LFS_SUFFIXES) else hashlib.sha1
    return digest(data).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed in mid-answer is part of the tests."""


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of 127.0.0.1, stopped at the end."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        for event in hub.faults.hold_second_read.values():
            event.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
