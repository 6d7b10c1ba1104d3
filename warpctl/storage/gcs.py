"""Google Cloud Storage: gcsfs with our retries in place of its own, and what its errors mean."""

from __future__ import annotations

import base64
import contextlib
import io
import os
from collections.abc import Mapping
from typing import Any

from warpctl.errors import StoreUnavailableError
from warpctl.storage.create_once import create_in_object_store
from warpctl.storage.object_files import ObjectFiles, fill
from warpctl.storage.retries import Retries
from warpctl.storage.uploads import PART_BYTES, crc32c

# gcsfs reads this when it is imported. Its extended file system asks for each bucket's layout over gRPC first, which blocks
# for a minute against an emulator and which flat objects do not need anywhere.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

import aiohttp
import google.auth.exceptions
from fsspec.asyn import sync_wrapper
from gcsfs.core import GCSFileSystem
from gcsfs.retry import HttpError, is_retriable, validate_response

PARTIAL_CONTENT = 206

_request_once = getattr(GCSFileSystem._request, "__wrapped__", GCSFileSystem._request)  # noqa: SLF001
"""gcsfs's request without its fixed six attempts (31 seconds, and none after a timeout)."""


class RetryingGcs(GCSFileSystem):  # type: ignore[misc]  # gcsfs has no types
    """Every single request retried by our policy, those of a streaming upload too."""

    def __init__(self, *, retries: Retries, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._retries = retries

    async def _request(self, method: str, path: str, *args: Any, data: Any = None, **kwargs: Any) -> Any:
        try:
            async for attempt in self._retries.context(is_transient):
                with attempt:
                    # aiohttp sends a file in pieces, and warns that one big bytes object would hold up its event loop
                    body = io.BytesIO(data) if isinstance(data, (bytes, bytearray, memoryview)) else data
                    return await _request_once(self, method, path, *args, data=body, **kwargs)
        except Exception as error:
            if is_transient(error):
                raise StoreUnavailableError(f"{method}: {describe(error)}") from error
            raise

    async def _read_into(self, path: str, start: int, target: memoryview) -> int:
        """One range request whose answer goes straight into `target`; the caller tries again."""
        await self._set_session()
        headers = self._get_headers({"Range": f"bytes={start}-{start + len(target) - 1}"})
        async with self.session.get(
            self.url(path), params=self._get_params({}), headers=headers, timeout=self.requests_timeout
        ) as answer:
            if not answer.ok:
                validate_response(answer.status, await answer.read(), path)
            if start and answer.status != PARTIAL_CONTENT:
                raise ConnectionError(f"{path}: the whole object came, and not its bytes from {start} on")
            return await fill(target, answer.content.iter_any())

    read_into = sync_wrapper(_read_into)


class GcsUpload:
    """A resumable upload: one request after the other, as GCS wants it, from a thread of its own."""

    parallel = 1

    def __init__(self, fs: RetryingGcs, path: str) -> None:
        self._fs = fs
        self._path = path
        self._file: Any = None
        self._crc = 0

    def put(self, data: memoryview) -> None:
        self._crc = crc32c(data)
        self._fs.pipe_file(self._path, bytes(data))

    def send(self, number: int, part: memoryview) -> None:
        if number == 0:
            self._file = self._fs.open(self._path, "wb", block_size=PART_BYTES)
        self._crc = crc32c(part, self._crc)
        self._file.write(part)  # sends it when it is a whole part

    def finish(self, num_parts: int) -> None:  # noqa: ARG002 - GCS counts bytes
        self._file.close()

    def abort(self) -> None:
        if self._file is None:
            return
        # The file's finaliser would complete the upload while `closed` is False.
        with contextlib.suppress(Exception):
            self._file.discard()
        self._file.closed = True

    def mismatch(self, details: Mapping[str, Any]) -> str:
        sent = base64.b64encode(self._crc.to_bytes(4, "big")).decode()
        stored = details.get("crc32c", sent)
        return "" if stored == sent else f"bytes with crc32c {sent} were sent, with {stored} were stored"


def is_transient(error: Exception) -> bool:
    """503, 429, 408, other 5xx, resets, timeouts, tokens that could not be refreshed just now."""
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        return bool(error.retryable)
    return isinstance(error, (ConnectionError, TimeoutError)) or bool(is_retriable(error))


def is_denied(error: Exception) -> bool:
    """401, 403 (which gcsfs turns into a plain OSError), no credentials at all."""
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        return not error.retryable
    if isinstance(error, HttpError):
        return str(error.code) in ("401", "403")
    return type(error) is OSError and str(error).startswith("Forbidden")


def is_beyond_end(error: Exception) -> bool:
    return (isinstance(error, HttpError) and str(error.code) == "416") or (
        isinstance(error, (ValueError, HttpError)) and "not satisfiable" in str(error)
    )


def describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def connect(retries: Retries) -> ObjectFiles:
    """The file system behind gs://, anonymous at STORAGE_EMULATOR_HOST when that is set, else with the usual credentials."""
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
    fs = RetryingGcs(
        retries=retries,
        token="anon" if emulator else None,
        endpoint_url=emulator or None,
        requests_timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=retries.read_timeout_seconds, sock_read=retries.read_timeout_seconds
        ),
        use_listings_cache=False,
    )

    def identity() -> str:
        credentials = getattr(fs.credentials, "credentials", None)
        return str(getattr(credentials, "service_account_email", "") or ("anonymous" if credentials is None else "you"))

    return ObjectFiles(
        fs=fs,
        scheme="gs",
        create=lambda path, data: create_in_object_store(fs, path, data),
        list_one=lambda bucket: fs.call("GET", "b/{}/o", bucket, maxResults=1),
        transient=is_transient,
        denied=is_denied,
        beyond_end=is_beyond_end,
        describe_identity=identity,
        upload=lambda path: GcsUpload(fs, path),
    )
