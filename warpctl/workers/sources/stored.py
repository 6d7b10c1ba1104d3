"""A file or folder in an object store: gs:// and s3://, read through the Store with its retries and its errors."""

from __future__ import annotations

from collections.abc import Iterator

from warpctl.errors import InputError
from warpctl.storage.backend import FileStat
from warpctl.storage.store import Store
from warpctl.workers.sources.base import READ_BYTES, SourceFile, changed

RANGE_BYTES = 4 * READ_BYTES


class StoredSource:
    """`uri` names an object or a prefix; objects are told apart by size and time of change."""

    pinned_revision = ""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        parent, _, name = self.uri.rpartition("/")
        self.is_single_file = bool(name) and "://" in parent and Store.open(parent).stat(name) is not None
        self._store = Store.open(parent if self.is_single_file else self.uri)
        self._name = name

    def files(self) -> list[SourceFile]:
        if self.is_single_file:
            stat = self._store.stat(self._name)
            return [] if stat is None else [_listed(stat)]
        found = [_listed(stat) for stat in self._store.list("") if not stat.path.endswith("/")]
        if not found:
            raise InputError(f"{self.uri} holds nothing", hint="check the URI, and that whoever imports may list it")
        return sorted(found, key=lambda file: file.name)

    def stream(self, file: SourceFile, start: int) -> Iterator[bytes]:
        while start < file.size:
            try:
                piece = self._store.read_range(file.name, start, min(start + RANGE_BYTES, file.size))
            except FileNotFoundError as error:
                raise changed(self, file, "it is gone") from error
            if not piece:
                raise changed(self, file, f"it ends at byte {start}")
            yield piece
            start += len(piece)
        stat = self._store.stat(file.name)
        if stat is None or _listed(stat) != file:
            raise changed(self, file, "its size or time of change is another")

    def copy_uri(self, file: SourceFile) -> str | None:
        return self._store.uri(file.name)

    def close(self) -> None:
        """Nothing is kept open."""


def _listed(stat: FileStat) -> SourceFile:
    modified = stat.modified.isoformat() if stat.modified else "unknown"
    return SourceFile(stat.path, stat.size, f"size={stat.size} modified={modified}")
