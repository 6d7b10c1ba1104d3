"""Reading a committed artifact: by its marker, pinned by digest, every chunk verified on every read."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final, Self

from warpctl import artifacts
from warpctl.errors import CorruptError, InputError, RetryableError
from warpctl.spec.stage_input import InputArtifact, StageKind
from warpctl.storage.manifest import FileEntry, Manifest, digest_of
from warpctl.storage.store import Store

_CHUNKS_KEPT: Final = 4
"""Verified chunks kept in memory (64 MiB): tensors are read in order and share chunks."""


class Artifact:
    """A committed artifact's files, by their logical names. Safe to use from several threads."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.manifest = manifest
        self._store = store
        self._files = {file.name: file for file in manifest.files}
        self._recent: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, store: Store, kind: str, key: str, *, digest: str | None = None) -> Self:
        """Read the marker; InputError when it is missing or its digest is not the pinned one."""
        path = artifacts.marker(kind, key)
        data = store.read_or_none(path)
        if data is None:
            raise InputError(
                f"there is no artifact at {store.uri(path)}",
                hint="it was collected or never published; run the same command again to make it",
            )
        found = digest_of(data)
        if digest is not None and found != digest:
            raise InputError(
                f"{store.uri(path)} has digest {found}, the stage was planned for {digest}",
                hint="the artifact was made anew after this stage was planned; run the same command again",
            )
        return cls(store, Manifest.from_bytes(data, source=store.uri(path)))

    @classmethod
    def of(cls, store: Store, input_artifact: InputArtifact) -> Self:
        """The artifact that a stage input names."""
        return cls.load(store, input_artifact.kind, input_artifact.key, digest=input_artifact.manifest_digest)

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """Names of the files that start with `prefix`, sorted."""
        return tuple(sorted(name for name in self._files if name.startswith(prefix)))

    def entry(self, name: str) -> FileEntry:
        """Path, size and digests of a file; InputError when the artifact has none of this name."""
        if name not in self._files:
            raise InputError(
                f"{self.manifest.stage_id}: the artifact has no file {name}; it has {', '.join(self.names()) or 'none'}",
                hint="the stage that published it made something else than expected; report this as a bug",
            )
        return self._files[name]

    def read(self, name: str) -> bytes:
        """The whole file, verified."""
        return self.read_range(name, 0, self.entry(name).size)

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of a file, cut at its end; the chunks that they lie in are read whole and verified.

        CorruptError names file and chunk when stored bytes are missing or differ from the manifest.
        """
        entry = self.entry(name)
        end = min(end, entry.size)
        if start >= end:
            return b""
        size = self.manifest.chunk_bytes
        first, last = start // size, (end - 1) // size
        pieces = [self._chunk(entry, index) for index in range(first, last + 1)]
        pieces[-1] = pieces[-1][: end - last * size]
        pieces[0] = pieces[0][start - first * size :]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(self, name: str, start: int, end: int, target: memoryview) -> None:
        """As read_range, into `target`, which has `end - start` bytes; CorruptError where the file ends before."""
        target[:] = self.read_range(name, start, end)

    def download(self, folder: Path, *, prefix: str = "") -> Path:
        """Verified copies of the files under `prefix`, the prefix cut off; hard links where store and folder share a disk.

        The files must not be changed: on a local store they are the artifact's own.
        """
        for name in self.names(prefix):
            target = folder / name.removeprefix(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            entry = self.entry(name)
            local = self._store.local_path(entry.path)
            partial = target.with_name(f"{target.name}.partial")
            try:
                if local is not None and _linked(local, target):
                    for index in range(len(entry.chunks)):
                        self._chunk(entry, index)
                    continue
                with partial.open("wb") as file:
                    for index in range(len(entry.chunks)):
                        file.write(self._chunk(entry, index))
                partial.replace(target)
            except OSError as error:
                raise RetryableError(
                    f"cannot write {target}: {error}", hint="free space on the worker's local disk, or set TMPDIR"
                ) from error
        return folder

    def _chunk(self, entry: FileEntry, index: int) -> bytes:
        """Chunk `index` of a file, from memory or verified."""
        key = (entry.name, index)
        with self._lock:
            if key in self._recent:
                self._recent.move_to_end(key)
                return self._recent[key]
        size = self.manifest.chunk_bytes
        start, end = index * size, min((index + 1) * size, entry.size)
        try:
            data = self._store.read_range(entry.path, start, end)
        except FileNotFoundError:
            raise self._corrupt(entry, index, "the object is gone") from None
        if len(data) != end - start:
            raise self._corrupt(entry, index, f"{len(data)} bytes are left of {end - start}")
        if digest_of(data) != entry.chunks[index]:
            raise self._corrupt(entry, index, "its bytes were altered")
        with self._lock:
            self._recent[key] = data
            while len(self._recent) > _CHUNKS_KEPT:
                self._recent.popitem(last=False)
        return data

    def _corrupt(self, entry: FileEntry, index: int, why: str) -> CorruptError:
        stage = artifacts.stage(self.manifest.kind, self.manifest.key)
        return CorruptError(
            f"{self._store.uri(entry.path)} ({entry.name}), chunk {index} of {len(entry.chunks)}: {why}",
            hint=f"restore the object, or delete {self._store.uri(stage)} so that the stage is computed again",
        )


def weights_prefix(input_artifact: InputArtifact) -> str:
    """Where a stage finds the weights in an input: a merge publishes two policies, everything else one, at the top."""
    if input_artifact.kind != StageKind.MERGE:
        return ""
    return "next-init/" if input_artifact.role == "init" else "merged/"


def _linked(source: Path, target: Path) -> bool:
    with contextlib.suppress(OSError):
        target.unlink(missing_ok=True)
        os.link(source, target)
        return True
    return False
