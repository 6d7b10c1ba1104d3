"""What a failed store operation means for the one who asked: an exception of warpctl, with identity, URI and hint."""

from __future__ import annotations

import errno

from warpctl.errors import RetryableError, StoreDeniedError, StoreUnavailableError, WarpctlError
from warpctl.storage.backend import Backend

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
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
