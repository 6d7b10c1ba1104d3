"""fsspec's memory file system, for tests: one dictionary per process, so one lock makes every step atomic."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsspec.implementations.memory import MemoryFileSystem

from warpctl.storage.backend import FileStat, Sink
from warpctl.storage.create_once import create_in_memory

_lock = threading.RLock()


class MemoryFiles:
    """Backend over memory://; gone with the process."""

    parallel_reads = 1

    def __init__(self) -> None:
        self._fs: Any = MemoryFileSystem()

    def read(self, path: str) -> bytes:
        with _lock:
            return bytes(self._fs.cat_file(path))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        with _lock:
            return bytes(self._fs.cat_file(path, start=start, end=end))

    def read_into(self, path: str, start: int, target: memoryview) -> int:
        data = self.read_range(path, start, start + len(target))
        target[: len(data)] = data
        return len(data)

    def write(self, path: str, data: bytes) -> None:
        with _lock:
            self._fs.pipe_file(path, data)

    def create_once(self, path: str, data: bytes) -> bool:
        return create_in_memory(self._fs, path, data, _lock)

    @contextlib.contextmanager
    def open_write(self, path: str) -> Iterator[Sink]:
        buffer = io.BytesIO()  # fsspec's own memory file is visible from its first byte on
        yield buffer
        self.write(path, buffer.getvalue())

    def stat(self, path: str) -> FileStat | None:
        with _lock:
            file = self._fs.store.get(path)
            return None if file is None else FileStat(path=path, size=file.size, modified=file.modified)

    def find(self, path: str, *, temporary: bool) -> Iterator[FileStat]:
        if temporary:
            return
        with _lock:
            paths = sorted(name for name in self._fs.store if name.startswith(f"{path}/"))
        for name in paths:
            found = self.stat(name)
            if found is not None:
                yield found

    def delete(self, path: str) -> None:
        with _lock:
            self._fs.store.pop(path, None)

    def delete_empty_folders(self, path: str) -> None:
        """There are none."""

    def copy_in(self, source_uri: str, path: str) -> bool:
        scheme, _, source = source_uri.partition("://")
        if scheme != "memory":
            return False
        self.write(path, self.read(f"/{source}"))
        return True

    def local_path(self, path: str) -> Path | None:  # noqa: ARG002 - never on a disk
        return None

    def has_bucket(self, path: str) -> bool:  # noqa: ARG002 - no buckets in memory
        return True

    def is_transient(self, error: Exception) -> bool:  # noqa: ARG002 - memory does not fail
        return False

    def is_denied(self, error: Exception) -> bool:  # noqa: ARG002 - memory does not refuse
        return False

    def identity(self) -> str:
        return "this process"
