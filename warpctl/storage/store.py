"""The Store: paths relative to one root, on any backend, with retries, clear errors and create_once.

Everything that warpctl keeps goes through here. There is no rename, no append and no compare-and-swap.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, TypeVar

from warpctl import artifacts
from warpctl.errors import UserError, WarpctlError
from warpctl.storage.backend import Backend, FileStat, Sink
from warpctl.storage.connect import connect
from warpctl.storage.create_once import won
from warpctl.storage.faults import explain, missing_bucket
from warpctl.storage.retries import Retries

__all__ = ["FileStat", "Retries", "Store"]

T = TypeVar("T")
Files = list[FileStat]  # here because `list` is a method below


@dataclass(frozen=True)
class Store:
    """An artifact store. Open one with `Store.open(uri)`; all paths are relative to its root, with forward slashes.

    Errors of all methods: StoreDeniedError (missing bucket, permission), StoreUnavailableError (after retries),
    RetryableError (disk full), FileNotFoundError where stated.
    """

    root: str
    """URI without a slash at the end; `Store.open(store.root)` is the same store."""
    _base: str = field(repr=False)
    _backend: Backend = field(repr=False)
    _retries: Retries = field(repr=False)
    _seen_bucket: list[bool] = field(default_factory=list, repr=False)

    @classmethod
    def open(cls, uri: str, *, retries: Retries | None = None) -> Self:
        """Open the store at a path (~ is expanded), file://, memory://, gs:// or s3:// URI; asks nothing of it yet."""
        policy = retries or Retries()
        backend, root, base = connect(uri, policy)
        return cls(root=root, _base=base, _backend=backend, _retries=policy)

    def uri(self, path: str) -> str:
        """Absolute URI of a relative path."""
        return f"{self.root}/{path}" if path else self.root

    def read(self, path: str) -> bytes:
        """The whole file; FileNotFoundError when absent."""
        return self._existing("read", path, self._backend.read)

    def read_or_none(self, path: str) -> bytes | None:
        """The whole file, None when absent."""
        try:
            return self.read(path)
        except FileNotFoundError:
            return None

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Bytes [start, end), fewer when the file is shorter; FileNotFoundError when absent."""
        if start >= end:
            return b""
        return self._existing("read", path, lambda full: self._backend.read_range(full, start, end))

    def read_into(self, path: str, start: int, target: memoryview) -> int:
        """Fill `target` with the bytes from `start` on; how many there were: fewer when the file is shorter.

        FileNotFoundError when absent.
        """
        if not target:
            return 0
        return self._existing("read", path, lambda full: self._backend.read_into(full, start, target))

    @property
    def parallel_reads(self) -> int:
        """How many reads at once make this store fastest."""
        return self._backend.parallel_reads

    def write(self, path: str, data: bytes) -> None:
        """Write or overwrite; a reader sees the old bytes or the new ones, never a mixture."""
        self._anyway("write", path, lambda full: self._backend.write(full, data))

    def create_once(self, path: str, data: bytes) -> bool:
        """Create the file unless it exists. True: these bytes are there, thanks to us; False: somebody else's are.

        `data` should name its writer (an attempt id): equal bytes count as ours, so that a lost response is no defeat.
        """
        created = self._anyway("create", path, lambda full: self._backend.create_once(full, data))
        return won(created, data, lambda: self.read(path))

    def stat(self, path: str) -> FileStat | None:
        """Size and time of a file, None when absent."""
        found = self._anyway("stat", path, self._backend.stat)
        if found is None:
            self._require_bucket("stat", path)
            return None
        return replace(found, path=path)

    def list(self, prefix: str) -> Files:
        """All files below a folder, recursively, by path; [] when there is none. Unfinished writes are not listed."""
        return self._find(prefix, temporary=False)

    def leftovers(self, prefix: str) -> Files:
        """Temporary files of writes that never ended (on disks and GCS; of those on S3 the bucket disposes)."""
        return self._find(prefix, temporary=True)

    def delete(self, path: str) -> None:
        """Remove a file; absent is fine."""
        self._call("delete", path, self._backend.delete)

    def delete_tree(self, prefix: str) -> None:
        """Remove all files below a folder; absent is fine. Unfinished writes are left to their writers, or to gc."""
        for found in self.list(prefix):
            self.delete(found.path)
        self.delete_empty_folders(prefix)

    def delete_empty_folders(self, prefix: str) -> None:
        """Remove the folders that a local disk keeps when their last file has gone."""
        self._call("delete", prefix, self._backend.delete_empty_folders)

    @contextlib.contextmanager
    def open_write(self, path: str) -> Iterator[Sink]:
        """Stream into a file that appears at `path` when the with-body ends well, and never when it raises."""
        full = self._full(path)
        failed_body: list[BaseException] = []
        try:
            with self._backend.open_write(full) as sink:
                try:
                    yield _ExplainingSink(sink, lambda error: self._explain("write", path, error))
                except BaseException as error:
                    failed_body.append(error)
                    raise
        except Exception as error:
            if failed_body:
                raise
            raise self._explain("write", path, error) from error

    def copy_in(self, source_uri: str, path: str) -> bool:
        """Hard link or server-side copy of a file outside the root; False when this store cannot (the caller streams)."""
        return self._existing(f"copy {source_uri} to", path, lambda full: self._backend.copy_in(source_uri, full))

    def local_path(self, path: str) -> Path | None:
        """Where the file lies on this machine's disk, for mmap; None for stores elsewhere."""
        return self._backend.local_path(self._full(path))

    def probe(self) -> None:
        """Prove that this identity may create, read and delete here, and that create_once creates once.

        StoreDeniedError when it may not; UserError when the store lets a second creator win (a cluster run refuses such a
        store, a local run warns).
        """
        path = f"{artifacts.PROBES}/{uuid.uuid4().hex}"
        try:
            first = self.create_once(path, b"first")
            second = self.create_once(path, b"second")
        finally:
            with contextlib.suppress(WarpctlError):
                self.delete(path)
        self.delete(path)
        if not first or second:
            raise UserError(
                f"{self.root} cannot create an object only once, so two attempts could both publish",
                hint="use a local disk, GCS or an S3 service that honours If-None-Match",
            )

    def greet(self) -> None:
        """See that the store answers and lets this identity look; StoreDeniedError or StoreUnavailableError if not."""
        self.stat(f"{artifacts.PROBES}/greeting")

    def _full(self, path: str) -> str:
        parts = path.split("/")
        if path and ("" in parts or "." in parts or ".." in parts):
            raise ValueError(f"{path!r} is not a path relative to the storage root")
        return f"{self._base}/{path}" if path else self._base

    def _find(self, prefix: str, *, temporary: bool) -> Files:
        prefix = prefix.rstrip("/")
        below = f"{prefix}/" if prefix else ""
        found = self._anyway("list", prefix, lambda full: [*self._backend.find(full, temporary=temporary)])
        if not found:
            self._require_bucket("list", prefix)
        cut = len(self._base) + 1
        relative = sorted((replace(file, path=file.path[cut:]) for file in found), key=lambda file: file.path)
        return [file for file in relative if file.path.startswith(below)]

    def _existing(self, operation: str, path: str, function: Callable[[str], T]) -> T:
        """Run an operation for which absent means FileNotFoundError, told apart from an absent bucket."""
        try:
            return self._call(operation, path, function)
        except FileNotFoundError:
            self._require_bucket(operation, path)
            raise FileNotFoundError(self.uri(path)) from None

    def _anyway(self, operation: str, path: str, function: Callable[[str], T]) -> T:
        """Run an operation that needs no object to be there: all that can be absent is the bucket."""
        try:
            return self._call(operation, path, function)
        except FileNotFoundError as error:
            raise self._explain(operation, path, error) from error

    def _call(self, operation: str, path: str, function: Callable[[str], T]) -> T:
        full = self._full(path)
        try:
            for attempt in self._retries.context(self._backend.is_transient):
                with attempt:
                    return function(full)
        except FileNotFoundError as error:
            if self._backend.is_denied(error):  # S3 says so of a missing bucket
                raise self._explain(operation, path, error) from error
            raise
        except Exception as error:
            raise self._explain(operation, path, error) from error
        raise AssertionError("a retry context ends in a value or an exception")

    def _require_bucket(self, operation: str, path: str) -> None:
        """Asked once: an absent object is normal, an absent bucket is final."""
        if self._seen_bucket:
            return
        if not self._call(operation, path, self._backend.has_bucket):
            raise missing_bucket(self._backend, operation, self.uri(path))
        self._seen_bucket.append(True)

    def _explain(self, operation: str, path: str, error: Exception) -> WarpctlError:
        if path.startswith(f"{artifacts.PROBES}/"):  # it is the store that is asked for, not this object
            operation, path = "use", ""
        if isinstance(error, FileNotFoundError) and not self._backend.is_denied(error):
            self._require_bucket(operation, path)
        return explain(self._backend, operation, self.uri(path), error)


@dataclass(frozen=True, slots=True)
class _ExplainingSink:
    """A backend's stream whose errors say which object and whose fault."""

    _sink: Sink
    _explain: Callable[[Exception], WarpctlError]

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        try:
            return self._sink.write(data)
        except Exception as error:
            raise self._explain(error) from error
