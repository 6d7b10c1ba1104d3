"""Publishing an artifact: files first, each under this attempt and written once; the marker last, created once.

Whatever happens before `commit` is invisible to readers. A zombie attempt can only write under its own folder, and only one
attempt's marker is ever created.
"""

from __future__ import annotations

import contextlib
import functools
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from warpctl import artifacts
from warpctl.spec.stage_input import StageInput
from warpctl.storage.backend import Sink
from warpctl.storage.chunk_hasher import CHUNK_BYTES, ChunkHasher
from warpctl.storage.manifest import FileEntry, Manifest, Parent, content_digest
from warpctl.storage.store import Store

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Publication:
    """The artifact that one attempt of one stage is about to publish. Several threads may write files of it at once."""

    def __init__(
        self, store: Store, stage_input: StageInput, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._stage_input = stage_input
        self._now = now
        self._started_at = now()
        self._files: dict[str, FileEntry] = {}
        self._begun: set[str] = set()
        self._lock = threading.Lock()
        self.is_committed = False
        """Whether the artifact is published, by this attempt or by another one that was first."""

    def path(self, name: str) -> str:
        """Where this attempt's file of this name lies."""
        stage = self._stage_input
        return artifacts.file(stage.kind, stage.key, stage.attempt_id, name)

    def write_file(self, name: str, data: bytes) -> FileEntry:
        """Write a small file."""
        with self._claim(name):
            hasher = ChunkHasher()
            hasher.update(data)
            entry = self._entry(name, hasher)
            self._store.write(entry.path, data)
            self._add(entry)
        return entry

    @contextlib.contextmanager
    def open_file(self, name: str) -> Iterator[Sink]:
        """Stream a file; its entry and its receipt are made when the with-body ends well, nothing when it raises."""
        with self._claim(name):
            hasher = ChunkHasher()
            with self._store.open_write(self.path(name)) as sink:
                yield _HashingSink(sink, hasher)
            self._finish(self._entry(name, hasher))

    def copy_file(self, name: str, source_uri: str) -> FileEntry | None:
        """Hard link or server-side copy, read back once for its digests; None when the store cannot (then stream)."""
        with self._claim(name):
            path = self.path(name)
            if not self._store.copy_in(source_uri, path):
                return None
            stat = self._store.stat(path)
            size = stat.size if stat else 0
            hasher = ChunkHasher()
            for start in range(0, size, CHUNK_BYTES):
                hasher.update(self._store.read_range(path, start, min(start + CHUNK_BYTES, size)))
            entry = self._entry(name, hasher)
            self._finish(entry)
        return entry

    def adopt(self, entry: FileEntry) -> None:
        """Take a file that is already in the store: an earlier attempt's, from its receipt."""
        with self._claim(entry.name):
            self._add(entry)

    def receipts(self) -> dict[str, FileEntry]:
        """Finished files of all attempts of this stage by name, those whose object still has the recorded size."""
        stage = self._stage_input
        found: dict[str, FileEntry] = {}
        for file in self._store.list(artifacts.attempts(stage.kind, stage.key)):
            attempt = file.path.removeprefix(artifacts.attempts(stage.kind, stage.key)).split("/")
            if attempt[2] != "receipts":
                continue
            try:
                entry = FileEntry.model_validate_json(self._store.read(file.path))
            except (ValidationError, FileNotFoundError):
                continue  # not worth a failure: the file is simply made again
            stat = self._store.stat(entry.path)
            if stat is not None and stat.size == entry.size:
                found[entry.name] = entry
        return found

    def commit(self, *, outcome: Mapping[str, Any] = _NOTHING, gpu_seconds: float = 0.0) -> Manifest:
        """Create the marker. Returns the manifest that won: ours, or that of another attempt that was first."""
        stage = self._stage_input
        with self._lock:
            files = tuple(self._files[name] for name in sorted(self._files))
        manifest = Manifest(
            kind=stage.kind,
            key=stage.key,
            attempt_id=stage.attempt_id,
            stage_id=stage.stage_id,
            files=files,
            parents=tuple(
                Parent(
                    role=parent.role,
                    kind=parent.kind,
                    key=parent.key,
                    manifest_digest=parent.manifest_digest,
                    content_digest=parent.content_digest,
                )
                for parent in stage.inputs
            ),
            content_digest=content_digest(files),
            versions=dict(_versions()),
            started_at=_timestamp(self._started_at),
            ended_at=_timestamp(self._now()),
            gpu_seconds=gpu_seconds,
            outcome=dict(outcome),
        )
        path = artifacts.marker(stage.kind, stage.key)
        is_ours = self._store.create_once(path, manifest.to_bytes())
        self.is_committed = True
        if is_ours:
            return manifest
        return Manifest.from_bytes(self._store.read(path), source=self._store.uri(path))

    def _entry(self, name: str, hasher: ChunkHasher) -> FileEntry:
        return FileEntry(name=name, path=self.path(name), size=hasher.size, chunks=hasher.finish())

    def _finish(self, entry: FileEntry) -> None:
        stage = self._stage_input
        receipt = artifacts.receipt(stage.kind, stage.key, stage.attempt_id, entry.name)
        self._store.write(receipt, entry.model_dump_json(by_alias=True).encode())
        self._add(entry)

    def _add(self, entry: FileEntry) -> None:
        with self._lock:
            self._files[entry.name] = entry

    @contextlib.contextmanager
    def _claim(self, name: str) -> Iterator[None]:
        """The name is the caller's until its file is whole or has failed; ValueError when it is, or was, another's."""
        with self._lock:
            if name in self._files or name in self._begun:
                raise ValueError(f"{name} is in this publication already; files are written once")
            self._begun.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._begun.discard(name)


class _HashingSink:
    """Passes bytes on and hashes them."""

    def __init__(self, sink: Sink, hasher: ChunkHasher) -> None:
        self._sink = sink
        self._hasher = hasher

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        self._sink.write(data)
        self._hasher.update(data)
        return memoryview(data).nbytes


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@functools.cache
def _versions() -> dict[str, str]:
    """Versions of what computed this; packages that are not installed are left out (a slim worker has no torch)."""
    found = {"python": platform.python_version()}
    for package in ("warpctl", "numpy", "torch", "transformers"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
