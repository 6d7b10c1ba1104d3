"""What a failed store operation means for the one who asked: an exception of warpctl, with identity, URI and hint."""

from __future__ import annotations

import errno

from warpctl.errors import RetryableError, StoreDeniedError, StoreUnavailableError, WarpctlError
from warpctl.storage.backend import Backend

NO_CREDENTIALS = "no credentials"
"""What a backend calls itself that found none."""
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role is attached",
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
}
_FULL = (errno.ENOSPC, errno.EDQUOT)


def explain(backend: Backend, operation: str, uri: str, error: Exception) -> WarpctlError:
    """The warpctl error for what a backend raised; retries are over."""
    if isinstance(error, StoreUnavailableError):
        return StoreUnavailableError(f"cannot {operation} {uri}: {error.message}", hint=_LATER)
    if isinstance(error, WarpctlError):
        return error
    if isinstance(error, OSError) and error.errno in _FULL:
        return RetryableError(
            f"cannot {operation} {uri}: the disk is full; nothing was published",
            hint="free space (`warpctl gc` lists what may go) or move spec.storage, then run the same command again",
        )
    if backend.is_denied(error):
        if backend.identity() == NO_CREDENTIALS:
            return StoreDeniedError(
                f"cannot {operation} {uri}: no credentials were found", hint=_CREDENTIALS[uri.partition(":")[0]]
            )
        return StoreDeniedError(
            f"cannot {operation} {uri} as {backend.identity()}: {_text(error)}",
            hint="check that the bucket or folder exists and that this identity may read, write, list and delete in it",
        )
    return StoreUnavailableError(f"cannot {operation} {uri}: {_text(error)}", hint=_LATER)


def missing_bucket(backend: Backend, operation: str, uri: str) -> StoreDeniedError:
    """A 404 that is not about the object."""
    return StoreDeniedError(
        f"cannot {operation} {uri} as {backend.identity()}: there is no such bucket, or this identity may not see it",
        hint="create the bucket, or correct spec.storage or the source's URI",
    )


_LATER = "the store did not answer as it should; run the same command again, what is published stays"


def _text(error: Exception) -> str:
    """One line. The operating system's errors in its words alone: the path is named already."""
    if isinstance(error, OSError) and error.errno and error.strerror and error.filename is not None:
        return error.strerror
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
