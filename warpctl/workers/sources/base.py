"""What every source can do, and the one retry loop that reads from all of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from warpctl.errors import RetryableError

READ_BYTES = 4 * 1024 * 1024
ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 20.0

Wait = Callable[[float], None]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source, as it was listed.

    `name` is relative to the source's root, with forward slashes; `size` is in bytes; `fingerprint` differs when the
    content may differ (etag, commit and blob, generation, time of change); `sha256` and `git_sha1` are hex digests
    that the source promises, or "".
    """

    name: str
    size: int
    fingerprint: str
    sha256: str = ""
    git_sha1: str = ""


class Source(Protocol):
    """Something that can be listed and read.

    Its methods raise `InputError` where no retry helps and `RetryableError` where one may.
    """

    uri: str
    """Where it is, without secrets: fit for logs and manifests."""
    pinned_revision: str
    """What the revision stands for (a commit), or "" where the source has no such thing."""
    is_single_file: bool
    """True when the URI names one file and not a folder."""

    def files(self) -> list[SourceFile]:
        """All files below the root, sorted by name."""
        ...

    def stream(self, file: SourceFile, start: int) -> Iterator[bytes]:
        """The file's bytes from `start` on, in pieces of bounded size."""
        ...

    def copy_uri(self, file: SourceFile) -> str | None:
        """A URI that the store may link or copy on the server's side, or None."""
        ...

    def close(self) -> None:
        """End its connections."""
        ...


def retrying(action: Callable[[], Result], *, wait: Wait) -> Result:
    """Call `action` until it does not raise `RetryableError`, at most ATTEMPTS times, with growing pauses."""
    failures = 0
    while True:
        try:
            return action()
        except RetryableError:
            failures += 1
            if failures >= ATTEMPTS:
                raise
            wait(_pause_seconds(failures))


def stream_all(source: Source, file: SourceFile, *, wait: Wait) -> Iterator[bytes]:
    """The whole file: after a transient failure it goes on at the byte where it was.

    Raises `RetryableError` when the source fails ATTEMPTS times without a byte between, or has other bytes than listed.
    """
    done, failures = 0, 0
    while done < file.size:
        try:
            for piece in source.stream(file, done):
                done += len(piece)
                failures = 0
                if done > file.size:
                    raise changed(source, file, f"it is longer than the {file.size} bytes that were listed")
                yield piece
            if done < file.size:
                raise RetryableError(f"{source.uri}: {file.name} ended at byte {done} of {file.size}")
        except SourceChangedError:
            raise
        except RetryableError:
            failures += 1
            if failures >= ATTEMPTS:
                raise
            wait(_pause_seconds(failures))


def read_start(source: Source, file: SourceFile, num_bytes: int, *, wait: Wait) -> bytes:
    """The first `num_bytes` bytes (fewer when the file is shorter)."""
    parts, missing = [], num_bytes
    pieces = stream_all(source, file, wait=wait)
    try:
        for piece in pieces:
            parts.append(piece[:missing])
            missing -= len(parts[-1])
            if not missing:
                break
    finally:
        getattr(pieces, "close", lambda: None)()
    return b"".join(parts)


class SourceChangedError(RetryableError):
    """The source was written to while it was read."""


def changed(source: Source, file: SourceFile, what: str) -> SourceChangedError:
    """The error for a file that is not what was listed."""
    return SourceChangedError(
        f"{source.uri}: {file.name} changed while it was read: {what}",
        hint="nothing was published; wait until nobody writes there, then run again",
    )


def _pause_seconds(failures: int) -> float:
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # spreads retries, guards nothing
