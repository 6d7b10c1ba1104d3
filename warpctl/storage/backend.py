"""What the Store needs of a file system; paths are absolute within it (`/data/x`, `bucket/x`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

TEMPORARY_PREFIX = ".tmp-"
"""Files whose names start like this are unfinished writes: no reader and no listing sees them."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """One stored file; `path` is relative to the storage root, `modified` is None where the backend does not know."""

    path: str
    size: int
    modified: datetime | None


class Sink(Protocol):
    """The write end of a stream."""

    def write(self, data: bytes | bytearray | memoryview, /) -> int: ...


class Backend(Protocol):
    """One file system. Methods raise FileNotFoundError for what is absent and the library's own errors for the rest."""

    @property
    def parallel_reads(self) -> int:
        """How many reads at once make it fastest: requests in flight, or threads on a disk."""
        ...

    def read(self, path: str) -> bytes: ...

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """At most the bytes [start, end): fewer when the file is shorter."""
        ...

    def read_into(self, path: str, start: int, target: memoryview) -> int:
        """Fill `target` with the bytes from `start` on; how many there were: fewer when the file is shorter."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Replace the file; a reader sees the old bytes or the new ones."""
        ...

    def create_once(self, path: str, data: bytes) -> bool:
        """Create the file unless it exists; False (or FileExistsError's meaning) when it does."""
        ...

    def open_write(self, path: str) -> AbstractContextManager[Sink]:
        """Stream into a file that appears only when the with-body ends well."""
        ...

    def stat(self, path: str) -> FileStat | None: ...

    def find(self, path: str, *, temporary: bool) -> Iterator[FileStat]:
        """All files below `path`, recursively: the finished ones, or the leftovers of unfinished writes."""
        ...

    def delete(self, path: str) -> None:
        """Remove the file; absent is fine."""
        ...

    def delete_empty_folders(self, path: str) -> None:
        """Remove what a file system leaves when the last file of a folder goes; nothing to do on object stores."""
        ...

    def copy_in(self, source_uri: str, path: str) -> bool:
        """Link or copy on the server's side; False when this backend cannot."""
        ...

    def local_path(self, path: str) -> Path | None: ...

    def has_bucket(self, path: str) -> bool:
        """Is there a bucket for this path? True where there are no buckets."""
        ...

    def is_transient(self, error: Exception) -> bool: ...

    def is_denied(self, error: Exception) -> bool: ...

    def identity(self) -> str:
        """Whom the store thinks we are, for messages."""
        ...
