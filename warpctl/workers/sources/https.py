"""One file on a web server."""

from __future__ import annotations

from collections.abc import Iterator
from posixpath import basename
from urllib.parse import unquote, urlsplit

from warpctl.errors import InputError
from warpctl.workers.sources.base import SourceFile
from warpctl.workers.sources.http_stream import new_client, read_head, stream_range

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class HttpsSource:
    """`url` names one file; a query (a signature, say) is used but never written down."""

    pinned_revision = ""
    is_single_file = True

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise InputError(
                f"an https:// source carries a user or password (host {parts.hostname})",
                hint="a WarpRun holds no secrets: use an object store, or import a local file",
            )
        if parts.scheme != "https" and parts.hostname not in LOOPBACK:
            raise InputError(f"{_public(url)} is not encrypted", hint="use https://")
        self._url = url
        self.uri = _public(url)
        self.name = basename(unquote(parts.path))
        if not self.name:
            raise InputError(
                f"{self.uri} names a folder, which https cannot list",
                hint="name one file, or use gs://, s3:// or hf://",
            )
        self._client = new_client()

    def files(self) -> list[SourceFile]:
        head = read_head(self._client, self._url, label=self.uri)
        return [SourceFile(self.name, head.size, head.tag)]

    def stream(self, file: SourceFile, start: int) -> Iterator[bytes]:
        tag = None if file.fingerprint.startswith("size=") else file.fingerprint
        return stream_range(self._client, self._url, start, label=self.uri, tag=tag)

    def copy_uri(self, file: SourceFile) -> str | None:  # noqa: ARG002  # a web server copies nothing for us
        return None

    def close(self) -> None:
        self._client.close()


def _public(url: str) -> str:
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"
