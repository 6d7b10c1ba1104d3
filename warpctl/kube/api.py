"""Requests to the API server: plain dicts in, plain dicts out, every failure a ClusterError."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import stamina
import urllib3

from warpctl.kube.clock import ServerClock
from warpctl.kube.errors import ClusterError, ClusterUnavailableError, refusal
from warpctl.kube.resources import Resource

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Object = dict[str, Any]

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 10.0
"""What a server's Retry-After may ask for at most."""
PAGE = 100
"""Objects of a list in one answer: a Job is tens of kilobytes in memory, and a controller lists three resources at once."""
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"  # JSON is YAML
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Listed:
    """A whole list, and the version that a watch goes on from."""

    items: list[Object]
    resource_version: str


@dataclass(frozen=True, slots=True)
class ListedPage(Listed):
    """A part of a list."""

    is_first: bool


@dataclass(frozen=True, slots=True)
class _Request:
    """One request; `what` is what it does, as a person would say it."""

    method: str
    path: str
    what: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Object | None = None
    content_type: str = "application/json"


def _allowed() -> None:
    return None


@dataclass
class Api:
    """One identity at one API server; safe to use from many threads."""

    client: ApiClient
    agent: str = "warpctl"
    may_write: Callable[[], None] = _allowed
    """Asked before every write; a controller that has lost its lease raises here."""
    on_answer: Callable[[str, str, int, float], None] | None = None
    """Told of every answer: method, path, HTTP status, seconds."""
    patience_seconds: float = READ_SECONDS
    """How long one answer may take, and a request with all of its repetitions go on."""
    clock: ServerClock = field(default_factory=ServerClock)
    """Learns the server's time from its answers."""
    _open: set[urllib3.BaseHTTPResponse] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """The object, None when there is none."""
        try:
            return self.request("GET", resource.path(namespace, name), what=f"read {resource.kind} {name}")
        except ClusterError as error:
            if error.is_absent:
                return None
            raise

    def list(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> Listed:
        """All objects, of one instant."""
        items: list[Object] = []
        for page in self.pages(resource, namespace, labels=labels, fields=fields):
            if page.is_first:
                items = []
            items += page.items
        return Listed(items, page.resource_version)

    def pages(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> Iterator[ListedPage]:
        """The same in pages, for who need not hold all at once; where a list expired on the way, another first page."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(PAGE)}
        token = ""
        while True:
            asked = {name: value for name, value in (query | {"continue": token}).items() if value}
            try:
                page = self.request("GET", resource.path(namespace), query=asked, what=f"list {resource.plural}")
            except ClusterError as error:
                if error.is_expired and token:
                    token = ""
                    continue
                raise
            metadata = page["metadata"]
            yield ListedPage(page["items"], metadata["resourceVersion"], is_first=not token)
            token = metadata.get("continue", "")
            if not token:
                return

    def create(self, resource: Resource, namespace: str, body: Object, *, is_dry_run: bool = False) -> Object:
        """Create the object; a ClusterError that `is_conflict` when the name is taken."""
        query = {"dryRun": "All"} if is_dry_run else {}
        what = f"create {resource.kind} {body['metadata'].get('name', '')}"
        return self.request("POST", resource.path(namespace), query=query, body=body, what=what)

    def apply(
        self,
        resource: Resource,
        namespace: str,
        body: Object,
        *,
        manager: str,
        force: bool = False,
        is_dry_run: bool = False,
    ) -> Object:
        """Server-side apply under the field manager `manager`."""
        name = body["metadata"]["name"]
        query = {"fieldManager": manager, "fieldValidation": "Strict"}
        query |= {"force": "true"} if force else {}
        query |= {"dryRun": "All"} if is_dry_run else {}
        path = resource.path(namespace, name)
        return self.request(
            "PATCH", path, query=query, body=body, content_type=APPLY_PATCH, what=f"apply {resource.kind} {name}"
        )

    def patch(self, resource: Resource, namespace: str, name: str, body: Object, *, subresource: str = "") -> Object:
        """Merge-patch the object; with metadata.resourceVersion in `body` only if it has not changed since."""
        what = f"change {resource.kind} {name}"
        path = resource.path(namespace, name, subresource)
        return self.request("PATCH", path, body=body, content_type=MERGE_PATCH, what=what)

    def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str = "", propagation: str = "Background"
    ) -> None:
        """Delete the object, only the one with `uid` where given; absent is fine.

        Propagation Foreground keeps the object until what it owns has gone.
        """
        body: Object = {"propagationPolicy": propagation}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            self.request("DELETE", resource.path(namespace, name), body=body, what=f"delete {resource.kind} {name}")
        except ClusterError as error:
            if not (error.is_absent or (uid and error.is_conflict)):
                raise

    def watch(
        self, resource: Resource, namespace: str, *, labels: str, version: str, seconds: float, silence_seconds: float
    ) -> Iterator[tuple[str, Object]]:
        """Events since `version`, for about `seconds`; ClusterUnavailableError after `silence_seconds` without a byte.

        The server sends a bookmark about once a minute, so a longer silence is a connection that is only half open.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "labelSelector": labels,
            "timeoutSeconds": str(int(seconds)),
        }
        asked = {name: value for name, value in query.items() if value}
        request = _Request("GET", resource.path(namespace), f"watch {resource.plural}", asked)
        response = self._send(request, silence_seconds, stream=True)
        with self._lock:
            self._open.add(response)
        try:
            for line in _lines(response, request.what):
                event = _event(line, request.what)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise refusal(int(status.get("code", 500)), json.dumps(status).encode(), None, request.what)
                yield event["type"], event["object"]
        except ClusterUnavailableError:
            self._distrust_idle_connections()
            raise
        finally:
            with self._lock:
                self._open.discard(response)
            response.close()

    def text(self, path: str, *, query: Mapping[str, str], what: str) -> str:
        """A plain-text answer, such as a pod's log."""
        return self._ask(_Request("GET", path, what, query)).decode(errors="replace")

    def lines(self, path: str, *, query: Mapping[str, str], what: str, silence_seconds: float) -> Iterator[str]:
        """A text answer line by line as it comes, such as a log that is followed; ClusterUnavailableError after a long silence."""
        response = self._send(_Request("GET", path, what, query), silence_seconds, stream=True)
        try:
            for line in _lines(response, what):
                yield line.decode(errors="replace")
        finally:
            response.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        what: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request, repeated where that is safe: after 429 always, after other transient answers only for reads."""
        request = _Request(method, path, what, query or {}, body, content_type)
        answer: Object = json.loads(self._ask(request) or b"{}")
        return answer

    def server_time(self) -> datetime:
        """What the server's clock says, to a second."""
        response = self._send(_Request("GET", "/version", "ask for the time"), self.patience_seconds, stream=False)
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)

    def close(self) -> None:
        """Wake whoever reads a watch."""
        with self._lock:
            for response in self._open:
                # Its reader may be closing it at this very moment: then it needs no waking.
                with contextlib.suppress(OSError, ValueError, RuntimeError):
                    response.shutdown()

    def _ask(self, request: _Request) -> bytes:
        def again(error: Exception) -> bool | float:
            if not isinstance(error, ClusterUnavailableError):
                return False
            is_unexecuted = error.code == HTTPStatus.TOO_MANY_REQUESTS
            if request.method != "GET" and not is_unexecuted:
                return False
            return min(error.retry_after, LONGEST_PAUSE_SECONDS) if error.retry_after is not None else True

        patience = self.patience_seconds
        for attempt in stamina.retry_context(on=again, attempts=4, wait_initial=0.2, wait_max=5.0, timeout=patience):
            with attempt:
                return self._send(request, patience, stream=False).data
        raise AssertionError("a retry context ends in a value or an exception")

    def _send(self, request: _Request, read_seconds: float | None, *, stream: bool) -> urllib3.BaseHTTPResponse:
        if request.method in WRITES:
            self.may_write()
        headers = {"Accept": "application/json, */*", "User-Agent": self.agent}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        query: list[tuple[str, str]] = list(request.query.items())
        self.client.update_params_for_auth(headers, query, ["BearerToken"])
        host = self.client.configuration.host
        began = time.monotonic()
        try:
            response: urllib3.BaseHTTPResponse = self.client.rest_client.pool_manager.request(
                request.method,
                host + request.path + (f"?{urlencode(query)}" if query else ""),
                headers=headers,
                body=None if request.body is None else json.dumps(request.body).encode(),
                preload_content=not stream,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._told(request, 0, began)
            self._distrust_idle_connections()
            raise ClusterUnavailableError(
                f"cannot {request.what}: no answer from {host} ({_cause(error)})",
                hint="is the cluster running, and does the kubeconfig name it?",
            ) from error
        self.clock.heard(response.headers.get("Date"), began)
        self._told(request, response.status, began)
        if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
            raise refusal(response.status, _body(response), response.headers.get("Retry-After"), request.what)
        return response

    def _distrust_idle_connections(self) -> None:
        """Idle ones went the same way as the one that broke: each that is dead too would cost a request its patience."""
        self.client.rest_client.pool_manager.clear()

    def _told(self, request: _Request, code: int, began: float) -> None:
        if self.on_answer is not None:
            self.on_answer(request.method, request.path, code, time.monotonic() - began)


def _body(response: urllib3.BaseHTTPResponse) -> bytes:
    """What an answer says; b"" where the connection broke before it was read: its status says enough."""
    try:
        return response.data
    except (urllib3.exceptions.HTTPError, OSError):
        return b""


def _lines(response: urllib3.BaseHTTPResponse, what: str) -> Iterator[bytes]:
    """Lines of a stream as they come; a connection that breaks or falls silent is a ClusterUnavailableError."""
    rest = b""
    try:
        for chunk in response.stream(amt=None, decode_content=True):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line for line in whole if line)
    except (
        urllib3.exceptions.HTTPError,
        OSError,
        ValueError,
        AttributeError,
    ) as error:  # the last two: closed by `close`
        raise ClusterUnavailableError(f"cannot {what}: the connection broke ({_cause(error)})") from error
    if rest:
        yield rest


def _event(line: bytes, what: str) -> Object:
    """One event of a watch. A TLS stream that `close` shuts under its reader may end in bytes that were never a line."""
    try:
        event: Object = json.loads(line)
    except ValueError as error:
        raise ClusterUnavailableError(f"cannot {what}: the connection broke in the middle of an event") from error
    return event


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
