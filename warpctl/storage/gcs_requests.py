"""gcsfs with our retries in place of its own, and what its errors mean."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import uuid
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote

from warpctl.errors import StoreUnavailableError
from warpctl.storage.crc32c import encoded
from warpctl.storage.object_files import fill
from warpctl.storage.request_body import RequestBody
from warpctl.storage.retries import Retries

# gcsfs reads this when it is imported. Its extended file system asks for each bucket's layout over gRPC first, which blocks
# for a minute against an emulator and which flat objects do not need anywhere.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

import google.auth.exceptions
from fsspec.asyn import sync_wrapper
from gcsfs.core import GCSFileSystem
from gcsfs.retry import HttpError, is_retriable, validate_response

MOST_COMPOSED: Final = 32
"""Objects that one request joins."""
_PARTIAL_CONTENT: Final = 206
_SMALL_REQUESTS_AT_ONCE: Final = 8
_TYPE: Final = "application/octet-stream"

_request_once = getattr(GCSFileSystem._request, "__wrapped__", GCSFileSystem._request)  # noqa: SLF001
"""gcsfs's request without its fixed six attempts (31 seconds, and none after a timeout)."""


class RetryingGcs(GCSFileSystem):  # type: ignore[misc]  # gcsfs has no types
    """Every single request retried by our policy, those of uploads too."""

    def __init__(self, *, retries: Retries, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.policy = retries
        self.lets_delete: dict[str, bool] = {}
        """Of buckets: may this identity delete what it made? See gcs_uploads."""

    async def _request(self, method: str, path: str, *args: Any, data: Any = None, **kwargs: Any) -> Any:
        try:
            async for attempt in self.policy.context(is_transient):
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
            if start and answer.status != _PARTIAL_CONTENT:
                raise ConnectionError(f"{path}: the whole object came, and not its bytes from {start} on")
            return await fill(target, answer.content.iter_any())

    read_into = sync_wrapper(_read_into)

    async def _put_object(self, path: str, data: memoryview, crc: int) -> None:
        """Store an object with one request; GCS refuses bytes that have another CRC32C. They are not copied."""
        bucket, _, key = path.partition("/")
        boundary = uuid.uuid4().hex  # stands nowhere in the data
        about = json.dumps({"crc32c": encoded(crc)})
        head = f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{about}\r\n--{boundary}\r\n"
        body = RequestBody(f"{head}Content-Type: {_TYPE}\r\n\r\n".encode(), data, f"\r\n--{boundary}--".encode())
        headers = {"Content-Type": f'multipart/related; boundary="{boundary}"', "Content-Length": str(len(body))}
        url = f"{self._location}/upload/storage/v1/b/{quote(bucket)}/o"
        try:
            async for attempt in self.policy.context(is_damage):
                with attempt:
                    stored = await self._call(
                        "POST", url, uploadType="multipart", name=key, headers=headers, data=body, json_out=True
                    )
                    if difference := describe_difference(stored, crc):
                        raise ConnectionError(difference)
        except Exception as error:
            if is_damage(error):
                raise StoreUnavailableError(f"POST: {describe(error)}") from error
            raise

    put_object = sync_wrapper(_put_object)

    async def _compose(self, path: str, parts: Sequence[str], made: list[str]) -> None:
        """Make an object of others in its bucket, however many; names of those in between go into `made` beforehand."""
        level = 0
        while len(parts) > MOST_COMPOSED:
            level += 1
            groups = [parts[start : start + MOST_COMPOSED] for start in range(0, len(parts), MOST_COMPOSED)]
            stem = parts[0].rpartition("-")[0]
            parts = [f"{stem}.{level}-{number:05d}" for number in range(len(groups))]
            made.extend(parts)
            await _all(self._compose_few(part, group) for part, group in zip(parts, groups, strict=True))
        await self._compose_few(path, parts)

    compose = sync_wrapper(_compose)

    async def _compose_few(self, path: str, parts: Sequence[str]) -> None:
        bucket, _, key = path.partition("/")
        request = {
            "sourceObjects": [{"name": part.partition("/")[2]} for part in parts],
            "destination": {"contentType": _TYPE},
        }
        await self._call("POST", "b/{}/o/{}/compose", bucket, key, json=request)

    async def _delete_all(self, paths: Iterable[str]) -> None:
        """Delete objects, up to the first failure: gc finds those that stay. Where one may not, parts are no good any more."""

        async def delete(path: str) -> None:
            try:
                await self._rm_file(path)
            except FileNotFoundError:
                pass
            except Exception as error:
                if is_denied(error):
                    self.lets_delete[path.partition("/")[0]] = False
                raise

        with contextlib.suppress(Exception):
            await _all(map(delete, paths))

    delete_all = sync_wrapper(_delete_all)


async def _all(requests: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Some of them at once. After an error nothing more is sent; it is raised when none runs any more."""
    room = asyncio.Semaphore(_SMALL_REQUESTS_AT_ONCE)
    errors: list[BaseException] = []

    async def one(request: Coroutine[Any, Any, None]) -> None:
        async with room:
            if errors:
                request.close()
                return
            try:
                await request
            except BaseException as error:
                errors.append(error)
                raise

    await asyncio.gather(*map(one, requests), return_exceptions=True)
    if errors:
        raise errors[0]


def is_transient(error: Exception) -> bool:
    """503, 429, 408, other 5xx, resets, timeouts, tokens that could not be refreshed just now."""
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        return bool(error.retryable)
    return isinstance(error, (ConnectionError, TimeoutError)) or bool(is_retriable(error))


def is_damage(error: Exception) -> bool:
    """Other bytes came than were sent: 400 by GCS's own comparison, or a ConnectionError by ours."""
    if isinstance(error, HttpError):
        return str(error.code) == "400" and "crc32c" in str(error.message).lower()
    return isinstance(error, ConnectionError)


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


def describe_difference(details: dict[str, Any], crc: int) -> str:
    """How an object, as GCS describes it, differs from bytes with this CRC32C; "" when it does not."""
    sent = encoded(crc)
    stored = details.get("crc32c", sent)
    return "" if stored == sent else f"bytes with crc32c {sent} were sent, with {stored} were stored"
