"""Reading one file over HTTP: ranges, redirects, and which answers are final."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx

from warpctl.errors import InputError, RetryableError
from warpctl.workers.sources.base import SourceChangedError

TIMEOUT = httpx.Timeout(60.0, connect=15.0)
_TRANSIENT = frozenset({408, 425, 429})


class AccessDeniedError(InputError):
    """The server answered 401 or 403."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a server says of a file: bytes, and a tag (etag, else time of change) that names its content."""

    size: int
    tag: str
    headers: Mapping[str, str]


def new_client(headers: Mapping[str, str] | None = None) -> httpx.Client:
    """A client that follows redirects; it drops credentials when one leads to another host."""
    return httpx.Client(
        headers={"Accept-Encoding": "identity", **(headers or {})}, timeout=TIMEOUT, follow_redirects=True
    )


def read_head(client: httpx.Client, url: str, *, label: str) -> Head:
    """Size and tag of what is at `url`; by GET, since some servers and all signed URLs refuse HEAD."""
    try:
        with client.stream("GET", url) as response:
            check_status(response, label=label)
            length = response.headers.get("Content-Length", "")
            if not length.isdigit() or "Content-Encoding" in response.headers:
                raise InputError(
                    f"{label}: the server does not say how long the file is, so a cut one could not be told",
                    hint="download it and import the local file",
                )
            tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or f"size={length}"
            return Head(int(length), tag, dict(response.headers))
    except httpx.TransportError as error:
        raise RetryableError(f"{label}: {describe(error)}") from error


def stream_range(client: httpx.Client, url: str, start: int, *, label: str, tag: str | None) -> Iterator[bytes]:
    """Bytes of `url` from `start` on; a server without ranges sends all and the start is dropped.

    A `tag` other than the server's own means that the file changed: `SourceChangedError`.
    """
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        with client.stream("GET", url, headers=headers) as response:
            check_status(response, label=label)
            now = response.headers.get("ETag") or response.headers.get("Last-Modified")
            if tag is not None and now is not None and now != tag:
                raise SourceChangedError(
                    f"{label} changed while it was read: its tag was {tag} and is {now}",
                    hint="nothing was published; wait until nobody writes there, then run again",
                )
            drop = 0 if response.status_code == httpx.codes.PARTIAL_CONTENT else start
            for piece in response.iter_raw():  # as they arrive: nothing that came is lost when the connection is
                kept = piece[drop:]
                drop = max(0, drop - len(piece))
                if kept:
                    yield kept
    except httpx.TransportError as error:
        raise RetryableError(f"{label}: {describe(error)}") from error


def is_final_status(status: int) -> bool:
    """May another request not be answered differently? All of 4xx but 408, 425 and 429."""
    return status < httpx.codes.INTERNAL_SERVER_ERROR and status not in _TRANSIENT


def check_status(response: httpx.Response, *, label: str) -> None:
    """Raise for an answer that is not a file: `InputError` if it is final, else `RetryableError`."""
    status = response.status_code
    if response.is_success:
        return
    if not is_final_status(status):
        raise RetryableError(f"{label}: the server answered {status} {response.reason_phrase}")
    message = f"{label}: the server answered {status} {response.reason_phrase}"
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        raise AccessDeniedError(message, hint="check that whoever imports may read it")
    raise InputError(message, hint="check the address")


def describe(error: httpx.TransportError) -> str:
    """Class and text of a transport error (some have an empty text)."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
