"""Object stores through fsspec: gcsfs and s3fs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from warpctl.storage.backend import TEMPORARY_PREFIX, FileStat, Sink
from warpctl.storage.uploads import PartSink, Upload


@dataclass(frozen=True)
class ObjectFiles:
    """Backend over one fsspec file system; what differs between the services comes in as functions."""

    fs: Any
    """With a `read_into` as ours has it: fsspec's own reads hold the bytes three times."""
    scheme: str
    create: Callable[[str, bytes], bool]
    list_one: Callable[[str], object]
    """Ask for at most one object of a bucket; raises FileNotFoundError when there is no such bucket."""
    transient: Callable[[Exception], bool]
    denied: Callable[[Exception], bool]
    beyond_end: Callable[[Exception], bool]
    """Is this the refusal of a range that starts behind the last byte (416)?"""
    describe_identity: Callable[[], str]
    upload: Callable[[str], Upload]
    """Begin to send an object to a path."""
    parallel_reads: int = 8

    def read(self, path: str) -> bytes:
        return bytes(self.fs.cat_file(path))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        try:
            return bytes(self.fs.cat_file(path, start=start, end=end))
        except Exception as error:
            if self.beyond_end(error):
                return b""
            raise

    def read_into(self, path: str, start: int, target: memoryview) -> int:
        try:
            return int(self.fs.read_into(path, start, target))
        except Exception as error:
            if self.beyond_end(error):
                return 0
            raise

    def write(self, path: str, data: bytes) -> None:
        self.fs.pipe_file(path, data)

    def create_once(self, path: str, data: bytes) -> bool:
        return self.create(path, data)

    @contextlib.contextmanager
    def open_write(self, path: str) -> Iterator[Sink]:
        upload = self.upload(path)
        sink = PartSink(upload)
        try:
            yield sink
            sink.close()
        except BaseException:
            sink.abort()
            raise
        # A part whose answer was lost is sent again; a server that took it for the next part stored it twice.
        details = self._details(path) or {"size": 0}
        difference = (
            f"{sink.size} bytes were sent, {details['size']} were stored"
            if int(details["size"]) != sink.size
            else upload.mismatch(details)
        )
        if difference:
            self.delete(path)
            raise ConnectionError(difference)

    def stat(self, path: str) -> FileStat | None:
        details = self._details(path)
        return None if details is None else _stat(path, details)

    def _details(self, path: str) -> dict[str, Any] | None:
        try:
            details: dict[str, Any] = self.fs.info(path)
        except FileNotFoundError:
            return None
        return None if details["type"] != "file" else details

    def find(self, path: str, *, temporary: bool) -> Iterator[FileStat]:
        # Parts on GCS are objects for a while. Those on S3 are not: a rule of the bucket ends what is unfinished.
        found = self.fs.find(path, detail=True, withdirs=False)
        for name in sorted(found):
            is_temporary = name.rpartition("/")[2].startswith(TEMPORARY_PREFIX)
            if found[name]["type"] == "file" and is_temporary == temporary:
                yield _stat(name, found[name])

    def delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(path)

    def delete_empty_folders(self, path: str) -> None:
        """Object stores have none."""

    def copy_in(self, source_uri: str, path: str) -> bool:
        scheme, separator, source = source_uri.partition("://")
        if not separator or scheme != self.scheme or source.split("/", 1)[0] != path.split("/", 1)[0]:
            return False
        self.fs.cp_file(source, path)
        return True

    def local_path(self, path: str) -> Path | None:  # noqa: ARG002 - never local
        return None

    def has_bucket(self, path: str) -> bool:
        try:
            self.list_one(path.split("/", 1)[0])
        except FileNotFoundError:
            return False
        return True

    def is_transient(self, error: Exception) -> bool:
        return self.transient(error)

    def is_denied(self, error: Exception) -> bool:
        return self.denied(error)

    def identity(self) -> str:
        return self.describe_identity()


async def fill(target: memoryview, pieces: AsyncIterator[bytes]) -> int:
    """Put the pieces of an answer where they belong as they come; how many bytes there were."""
    filled = 0
    async for piece in pieces:
        wanted = piece[: len(target) - filled]
        target[filled : filled + len(wanted)] = wanted
        filled += len(wanted)
    return filled


def _stat(path: str, details: dict[str, Any]) -> FileStat:
    """fsspec's file systems name the time of the last change as they please."""
    modified = next((details[name] for name in ("mtime", "LastModified") if details.get(name)), None)
    if isinstance(modified, datetime) and modified.tzinfo is None:
        modified = modified.replace(tzinfo=UTC)
    return FileStat(path=path, size=int(details["size"]), modified=modified)
