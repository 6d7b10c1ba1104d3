"""From a URI to its source."""

from __future__ import annotations

from collections.abc import Mapping

from warpctl.errors import InputError
from warpctl.workers.sources.base import Source
from warpctl.workers.sources.https import HttpsSource
from warpctl.workers.sources.hub import HubSource
from warpctl.workers.sources.local import LocalSource
from warpctl.workers.sources.stored import StoredSource


def open_source(uri: str, revision: str, *, environment: Mapping[str, str]) -> Source:
    """The source that `uri` names; `revision` matters to hubs only. Raises `InputError` for schemes nobody reads."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return LocalSource(uri)
    if scheme == "file":
        return LocalSource(rest)
    if scheme in {"https", "http"}:
        return HttpsSource(uri)
    if scheme == "hf":
        return HubSource(uri, revision, environment=environment)
    if scheme in {"gs", "s3", "memory"}:
        return StoredSource(uri)
    raise InputError(
        f"nothing is imported from {scheme}://", hint="use a path, gs://, s3://, https:// (one file) or hf://owner/name"
    )
