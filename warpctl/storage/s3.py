"""S3 and what speaks like it: s3fs (the extra `s3`) with our retries in place of its own, and what its errors mean."""

from __future__ import annotations

import os
from typing import Any

import aiohttp
import botocore.exceptions
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from warpctl.errors import StoreUnavailableError
from warpctl.storage.create_once import create_in_object_store
from warpctl.storage.faults import NO_CREDENTIALS
from warpctl.storage.object_files import ObjectFiles
from warpctl.storage.retries import Retries

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
_NO_CREDENTIALS = (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError)


class RetryingS3(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """Every single request retried by our policy, the parts of a streaming upload too."""

    retries = 1

    def __init__(self, *, policy: Retries, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._policy = policy

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        try:
            async for attempt in self._policy.context(is_transient):
                with attempt:
                    return await super()._call_s3(method, *akwarglist, **kwargs)
        except Exception as error:
            if is_transient(error):
                raise StoreUnavailableError(f"{method}: {type(error).__name__}: {error}") from error
            raise

    call_s3 = sync_wrapper(_call_s3)


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
    )
