"""The local disk: every write goes to a temporary name first, then becomes visible in one step."""

from __future__ import annotations

import contextlib
import errno
import getpass
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from warpctl.errors import InputError
from warpctl.storage.backend import TEMPORARY_PREFIX, FileStat, Sink
from warpctl.storage.create_once import create_local, in_folder, open_new, sync_folder, temporary_beside, write_new
from warpctl.storage.parallel import cores_of_this_process

_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
_SENT_BYTES = 32 * 1024 * 1024
_CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES)


class LocalFiles:
    """Backend over os and pathlib; fsspec's local file system has no atomic write and no fsync."""

    parallel_reads = min(cores_of_this_process(), 8)

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def read_range(self, path: str, start: int, end: int) -> bytes:
        with Path(path).open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def read_into(self, path: str, start: int, target: memoryview) -> int:
        with Path(path).open("rb", buffering=0) as file:
            file.seek(start)
            filled = 0
            while filled < len(target) and (num_bytes := file.readinto(target[filled:])):
                filled += num_bytes
        return filled

    def write(self, path: str, data: bytes) -> None:
        with _replacing(Path(path)) as temporary:
            write_new(temporary, data)

    def create_once(self, path: str, data: bytes) -> bool:
        return create_local(Path(path), data)

    @contextlib.contextmanager
    def open_write(self, path: str) -> Iterator[Sink]:
        with _replacing(Path(path)) as temporary, open_new(temporary) as file:
            yield _SentEarly(file)
            file.flush()
            os.fsync(file.fileno())

    def stat(self, path: str) -> FileStat | None:
        try:
            status = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not Path(path).is_file():
            return None
        return FileStat(path=path, size=status.st_size, modified=datetime.fromtimestamp(status.st_mtime, tz=UTC))

    def find(self, path: str, *, temporary: bool) -> Iterator[FileStat]:
        # os.walk passes over folders that vanish while it walks, as those of a running gc do.
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                if name.startswith(TEMPORARY_PREFIX) == temporary:
                    found = self.stat(f"{folder}/{name}")
                    if found is not None:
                        yield found

    def delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            Path(path).unlink()

    def delete_empty_folders(self, path: str) -> None:
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):  # not empty, or gone already
                Path(folder).rmdir()

    def copy_in(self, source_uri: str, path: str) -> bool:
        source = local_source(source_uri)
        if source is None:
            return False
        try:
            original = _existing(source)
            with _replacing(Path(path)) as temporary:
                in_folder(temporary.parent, lambda: os.link(original, temporary))
        except OSError as error:
            if error.errno in _CANNOT_LINK:
                return False
            raise
        return True

    def local_path(self, path: str) -> Path | None:
        return Path(path)

    def has_bucket(self, path: str) -> bool:  # noqa: ARG002 - no buckets on a disk
        return True

    def is_transient(self, error: Exception) -> bool:
        return isinstance(error, OSError) and error.errno in (errno.EINTR, errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT)

    def is_denied(self, error: Exception) -> bool:
        return isinstance(error, OSError) and error.errno in _DENIED

    def identity(self) -> str:
        try:
            return f"user {getpass.getuser()}"
        except (KeyError, OSError):  # a pod's uid without a name
            return f"uid {os.getuid()}"


class _SentEarly:
    """A file whose bytes go to the disk while it is written: what is left for fsync to wait for is little."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sent = self._written = 0

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        num_bytes = self._file.write(data)
        self._written += num_bytes
        if self._written - self._sent >= _SENT_BYTES and hasattr(os, "posix_fadvise"):
            self._file.flush()
            # "Not needed" has Linux begin to write dirty pages, without waiting; those stay in memory until they are clean.
            with contextlib.suppress(OSError):  # a hint that some file systems do not take
                os.posix_fadvise(self._file.fileno(), self._sent, self._written - self._sent, os.POSIX_FADV_DONTNEED)
            self._sent = self._written
        return num_bytes


def _existing(source: Path) -> Path:
    """The file behind links (a hub's cache is made of them): a hard link to a link would follow its target's fate."""
    if not source.is_file():
        raise InputError(f"there is no file {source}", hint="check the source's URI")
    return source.resolve()


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name that takes the place of `path` when the body ends well and is removed when it does not."""
    temporary = temporary_beside(path)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def local_source(uri: str) -> Path | None:
    """The path behind a bare path or file:// URI, None for any other scheme."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return None if "://" in uri else Path(uri).expanduser()
