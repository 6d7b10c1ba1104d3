"""S3 and what speaks like it: s3fs (the extra `s3`) with our retries in place of its own, and what its errors mean."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from typing import Any

import aiohttp
import botocore.exceptions
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from warpctl.errors import StoreUnavailableError
from warpctl.storage.crc32c import crc32c, encoded
from warpctl.storage.create_once import create_in_object_store
from warpctl.storage.faults import NO_CREDENTIALS
from warpctl.storage.object_files import ObjectFiles, fill
from warpctl.storage.request_body import RequestBody
from warpctl.storage.retries import Retries
from warpctl.storage.uploads import PARTS_AT_ONCE

_TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)
_TRANSIENT_CODES = (
    "SlowDown",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
    "ConditionalRequestConflict",  # 409: another conditional write of this key is under way
    "OperationAborted",
    "BadDigest",
    "IncompleteBody",
)
_TRANSIENT_ERRORS = (
    ConnectionError,
    TimeoutError,
    aiohttp.ClientError,
    botocore.exceptions.HTTPClientError,  # timeouts, connections closed early
    botocore.exceptions.ConnectionError,  # resets, unreachable endpoints
    botocore.exceptions.IncompleteReadError,
    botocore.exceptions.ResponseStreamingError,
)
_MD5_DIGITS = 32
_PIECE_BYTES = 256 * 1024
_NO_CREDENTIALS = (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError)


class RetryingS3(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """Every single request retried by our policy, the parts of a streaming upload too."""

    retries = 1

    def __init__(self, *, policy: Retries, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.policy = policy

    async def set_session(self, *args: Any, **kwargs: Any) -> Any:
        client = await super().set_session(*args, **kwargs)
        # Of what can be read botocore would ask first whether it may send it; who never answers would hold up each part.
        client.meta.events.register_last("before-call.s3", _without_asking, unique_id="warpctl")
        return client

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        try:
            async for attempt in self.policy.context(is_transient):
                with attempt:
                    return await super()._call_s3(method, *akwarglist, **kwargs)
        except Exception as error:
            if is_transient(error):
                raise StoreUnavailableError(f"{method}: {type(error).__name__}: {error}") from error
            raise

    call_s3 = sync_wrapper(_call_s3)

    async def _read_into(self, path: str, start: int, target: memoryview) -> int:
        """One range request whose answer goes straight into `target`; the caller tries again what breaks its body."""
        bucket, _, key = path.partition("/")
        wanted = f"bytes={start}-{start + len(target) - 1}"
        answer = await self._call_s3("get_object", Bucket=bucket, Key=key, Range=wanted)
        body = answer["Body"]
        try:
            if start and not str(answer.get("ContentRange", "")).startswith(f"bytes {start}-"):
                raise ConnectionError(f"{path}: the whole object came, and not its bytes from {start} on")
            return await fill(target, body.iter_chunks(_PIECE_BYTES))
        finally:
            body.close()

    read_into = sync_wrapper(_read_into)


def _without_asking(params: Mapping[str, Any], **_: Any) -> None:
    params["headers"].pop("Expect", None)


class S3Upload:
    """A multipart upload, several parts at once, each compared by its ETag and refused by S3 if its CRC32C is not right."""

    def __init__(self, fs: RetryingS3, path: str) -> None:
        self._fs = fs
        bucket, _, key = path.partition("/")
        self._object = {"Bucket": bucket, "Key": key}
        self._upload_id = ""
        self._parts: dict[int, dict[str, Any]] = {}

    def put(self, data: memoryview) -> None:
        self._send("put_object", data, self._object)

    def begin(self) -> int:
        begun = self._fs.call_s3("create_multipart_upload", **self._object, ChecksumAlgorithm="CRC32C")
        self._upload_id = begun["UploadId"]
        return PARTS_AT_ONCE

    def send(self, number: int, part: memoryview) -> None:
        where = self._object | {"UploadId": self._upload_id, "PartNumber": number + 1}
        etag, checksum = self._send("upload_part", part, where)
        self._parts[number] = {"PartNumber": number + 1, "ETag": etag, "ChecksumCRC32C": checksum}

    def finish(self, num_parts: int) -> None:
        parts = [self._parts[number] for number in range(num_parts)]
        # Not there any more: the answer was lost and this is the second request. The object's size is compared next.
        with contextlib.suppress(FileNotFoundError):
            self._fs.call_s3(
                "complete_multipart_upload", **self._object, UploadId=self._upload_id, MultipartUpload={"Parts": parts}
            )

    def abort(self) -> None:
        if self._upload_id:
            with contextlib.suppress(Exception):
                self._fs.call_s3("abort_multipart_upload", **self._object, UploadId=self._upload_id)

    def mismatch(self, details: Mapping[str, Any]) -> str:  # noqa: ARG002
        return ""  # every part was compared

    def _send(self, method: str, data: memoryview, where: Mapping[str, Any]) -> tuple[str, str]:
        """Send until what was stored is what was sent; its ETag and CRC32C."""
        body = _S3Body(data)
        checksum = encoded(crc32c(data))
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        for attempt in self._fs.policy.context(is_transient):
            with attempt:
                answer: dict[str, Any] = self._fs.call_s3(method, **where, Body=body, ChecksumCRC32C=checksum)
                stored = answer["ETag"].strip('"')
                if is_md5(answer) and stored != md5:
                    raise ConnectionError(f"bytes with md5 {md5} were sent, with {stored} were stored")
        return answer["ETag"], checksum


class _S3Body(RequestBody):
    """With the methods of a file that botocore asks for: it reads a body once to sign it where there is no TLS."""

    def __init__(self, data: memoryview) -> None:
        super().__init__(data)
        self._data = data
        self._position = 0

    def read(self, num_bytes: int = -1) -> bytes:
        end = len(self._data) if num_bytes < 0 else self._position + num_bytes
        found = bytes(self._data[self._position : end])
        self._position += len(found)
        return found

    def seek(self, position: int) -> None:
        self._position = position

    def tell(self) -> int:
        return self._position


def is_md5(answer: Mapping[str, Any]) -> bool:
    """Whether the ETag of what was stored is its md5: not when it lies encrypted with a key of its owner's."""
    is_encrypted = "SSECustomerAlgorithm" in answer or answer.get("ServerSideEncryption", "AES256") != "AES256"
    return not is_encrypted and len(answer["ETag"].strip('"')) == _MD5_DIGITS


def _response(error: BaseException) -> tuple[str, int]:
    """Error code and HTTP status of the answer that s3fs translated into an OSError."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
    return code, int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_transient(error: Exception) -> bool:
    """503 and its like, throttling, resets, timeouts, bodies cut short."""
    code, status = _response(error)
    if code or status:
        return code in _TRANSIENT_CODES or status in _TRANSIENT_STATUS
    return isinstance(error, _TRANSIENT_ERRORS)


def is_denied(error: Exception) -> bool:
    """401, 403, expired or missing credentials, no such bucket."""
    code, status = _response(error)
    return isinstance(error, (PermissionError, *_NO_CREDENTIALS)) or code == "NoSuchBucket" or status in (401, 403)


def is_beyond_end(error: Exception) -> bool:
    code, status = _response(error)
    return code == "InvalidRange" or status == 416


def connect(retries: Retries) -> ObjectFiles:
    """The file system behind s3://, with the credentials and endpoint that botocore finds (AWS_* variables, profile, role)."""
    fs = RetryingS3(
        policy=retries,
        endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
        config_kwargs={
            "connect_timeout": retries.read_timeout_seconds,
            "read_timeout": retries.read_timeout_seconds,
            "retries": {"mode": "standard", "total_max_attempts": 1},
        },
        use_listings_cache=False,
    )

    def identity() -> str:
        signer = getattr(getattr(fs, "_s3", None), "_request_signer", None)
        credentials = getattr(signer, "_credentials", None)
        key = getattr(credentials, "access_key", "")
        return f"access key {key}" if key else NO_CREDENTIALS

    return ObjectFiles(
        fs=fs,
        scheme="s3",
        create=lambda path, data: create_in_object_store(fs, path, data),
        list_one=lambda bucket: fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1),
        transient=is_transient,
        denied=is_denied,
        beyond_end=is_beyond_end,
        describe_identity=identity,
        upload=lambda path: S3Upload(fs, path),
    )
