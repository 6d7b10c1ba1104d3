"""Reading a committed artifact: by its marker, pinned by digest, every chunk verified on every read."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Final, Self

from warpctl import artifacts
from warpctl.errors import CorruptError, InputError, RetryableError
from warpctl.spec.stage_input import InputArtifact, StageKind
from warpctl.storage.manifest import FileEntry, Manifest, digest_of
from warpctl.storage.parallel import run_all
from warpctl.storage.store import Store

_CHUNKS_KEPT: Final = 2
"""Verified chunks kept in memory (32 MiB): tensors are read in order, and neighbours share a chunk."""
_READS: Final = 2
"""A chunk that is not what the manifest says is read once more: the bytes may have changed on their way."""


class Artifact:
    """A committed artifact's files, by their logical names. Safe to use from several threads."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.manifest = manifest
        self._store = store
        self._files = {file.name: file for file in manifest.files}
        self._recent: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
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
        first = start // size
        if end <= (first + 1) * size:
            return self._chunk(entry, first)[start - first * size : end - first * size]
        buffer = io.BytesIO(bytes(end - start))  # gives its bytes away without a copy
        with buffer.getbuffer() as target:
            self.read_into(name, start, end, target)
        return buffer.getvalue()

    def read_into(self, name: str, start: int, end: int, target: memoryview) -> None:
        """Fill `target` with the bytes [start, end) of a file: several chunks at once, verified where they lie.

        Chunks that lie wholly in the range go straight into `target`; those at its edges pass through a small cache, since
        the next range wants the rest of them. After an error nothing writes into `target` any more, and what it holds is
        not to be used. ValueError when the range is not within the file or `target` not as long; CorruptError as above.
        """
        entry = self.entry(name)
        view = target.cast("B")
        if not 0 <= start <= end <= entry.size or len(view) != end - start:
            raise ValueError(f"bytes {start} to {end} of {name} ({entry.size}) do not fill {len(view)} bytes")
        size = self.manifest.chunk_bytes
        jobs = []
        for index in range(start // size, -(-end // size)):
            low, high = max(index * size, start), min((index + 1) * size, end)
            piece = view[low - start : high - start]
            is_whole = high - low == self._chunk_length(entry, index)
            jobs.append(functools.partial(self._fill_whole if is_whole else self._fill_part, entry, index, low, piece))
        run_all(jobs, parallel=self._store.parallel_reads)

    def for_each_chunk(self, name: str, use: Callable[[int, memoryview], None]) -> None:
        """Read a whole file, several chunks at once; each, verified, goes with its offset to `use` in the thread that read it.

        In no order, and from several threads; the bytes are gone when `use` returns. Memory: a chunk for each thread.
        CorruptError as above.
        """
        entry = self.entry(name)
        buffers: queue.SimpleQueue[bytearray] = queue.SimpleQueue()

        def verify(index: int) -> None:
            try:
                buffer = buffers.get_nowait()
            except queue.Empty:
                buffer = bytearray(self._chunk_length(entry, 0))
            data = memoryview(buffer)[: self._chunk_length(entry, index)]
            self._fetch(entry, index, data)
            use(index * self.manifest.chunk_bytes, data)
            buffers.put(buffer)

        jobs = [functools.partial(verify, index) for index in range(len(entry.chunks))]
        run_all(jobs, parallel=self._store.parallel_reads)

    def view(self, name: str, start: int, end: int) -> memoryview | None:  # noqa: ARG002
        """None: what is verified must not change any more, so it is a copy."""
        return None

    def forget(self, name: str, start: int, end: int) -> None:
        """There are no views."""

    def check_leases(self) -> None:
        """There are no views."""

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
                    self.for_each_chunk(name, lambda _, __: None)
                    continue
                with partial.open("wb", buffering=0) as file:
                    self.for_each_chunk(name, functools.partial(_write_at, file.fileno()))
                partial.replace(target)
            except OSError as error:
                raise RetryableError(
                    f"cannot write {target}: {error}", hint="free space on the worker's local disk, or set TMPDIR"
                ) from error
        return folder

    def _chunk_length(self, entry: FileEntry, index: int) -> int:
        return min(self.manifest.chunk_bytes, entry.size - index * self.manifest.chunk_bytes)

    def _fill_whole(self, entry: FileEntry, index: int, _: int, target: memoryview) -> None:
        with self._lock:
            held = self._recent.get((entry.name, index))
        if held is None:
            self._fetch(entry, index, target)
        else:
            target[:] = held.result()

    def _fill_part(self, entry: FileEntry, index: int, start: int, target: memoryview) -> None:
        """Fill `target` with the bytes from `start` on, which lie in chunk `index`."""
        skip = start - index * self.manifest.chunk_bytes
        target[:] = memoryview(self._chunk(entry, index))[skip : skip + len(target)]

    def _chunk(self, entry: FileEntry, index: int) -> bytes:
        """Chunk `index` of a file, from memory or verified; who comes while it is fetched waits for the same bytes."""
        key = (entry.name, index)
        with self._lock:
            held = self._recent.get(key)
            if held is None:
                mine: Future[bytes] = Future()
                self._recent[key] = mine
                while len(self._recent) > _CHUNKS_KEPT:
                    self._recent.popitem(last=False)
            else:
                self._recent.move_to_end(key)
        if held is not None:
            return held.result()
        try:
            buffer = io.BytesIO(bytes(self._chunk_length(entry, index)))
            with buffer.getbuffer() as target:
                self._fetch(entry, index, target)
            mine.set_result(buffer.getvalue())
        except BaseException as error:
            with self._lock:
                if self._recent.get(key) is mine:
                    del self._recent[key]
            mine.set_exception(error)
            raise
        return mine.result()

    def _fetch(self, entry: FileEntry, index: int, target: memoryview) -> None:
        """Chunk `index` of a file from the store into `target`, verified."""
        for _ in range(_READS):
            try:
                num_bytes = self._store.read_into(entry.path, index * self.manifest.chunk_bytes, target)
            except FileNotFoundError:
                raise self._corrupt(entry, index, "the object is gone") from None
            if num_bytes != len(target):
                why = f"{num_bytes} bytes are left of {len(target)}"
            elif digest_of(target) != entry.chunks[index]:
                why = "its bytes were altered"
            else:
                return
        raise self._corrupt(entry, index, why)

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


def _write_at(descriptor: int, start: int, data: memoryview) -> None:
    while data:
        num_bytes = os.pwrite(descriptor, data, start)
        start, data = start + num_bytes, data[num_bytes:]


def _linked(source: Path, target: Path) -> bool:
    with contextlib.suppress(OSError):
        target.unlink(missing_ok=True)
        os.link(source, target)
        return True
    return False
