"""A model folder without a manifest that a merge writes: the file without which it is no model comes last.

One merge writes at a time. On a disk it holds a lock; in a bucket, or where folders cannot be locked, its record changes
now and then.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from warpctl.errors import UserError, WarpctlError
from warpctl.storage.backend import FileStat, Sink
from warpctl.storage.file_names import CONFIG, INDEX, MERGE_RECORD
from warpctl.storage.folder_lock import LOCK, FolderLock, is_locked
from warpctl.storage.plain_folder import OnBytes, untold
from warpctl.storage.store import Store

BEAT_SECONDS = 15.0
PATIENCE_SECONDS = 60.0
"""A merge that writes into a bucket says so every 15 s; one that says nothing for a minute is dead."""


class NewFolder:
    """A folder that is being written. Its record (merge.json) comes first and says what will lie there; config.json last.

    So a folder with our record and without config.json is one that was never finished, and may be written anew, unless
    its writer lives: on a disk it holds a lock, elsewhere its record changes (`beat`).
    """

    def __init__(self, store: Store, unfinished: Iterable[FileStat], *, on_bytes: OnBytes) -> None:
        self.uri = store.root
        self.unfinished = {file.path: file.size for file in unfinished}
        """Files of an earlier merge that never ended, and their sizes; `begin` removes them."""
        self._earlier_record = store.read_or_none(MERGE_RECORD) if self.unfinished else None
        self._lock: FolderLock | None = None
        self._store = store
        self._on_bytes = on_bytes
        self._names: list[str] = []
        self._written: dict[str, FileStat | None] = {}
        """What this merge has put there, and how it was then."""
        self._writer = uuid.uuid4().hex
        self._num_beats = 0
        self._beating: threading.Thread | None = None
        self._has_ended = threading.Event()
        self._index: bytes | None = None

    @classmethod
    def open(cls, uri: str, *, on_bytes: OnBytes = untold) -> Self:
        """UserError unless the folder is absent, empty, or holds what an unfinished merge left. Changes nothing."""
        store = Store.open(uri)
        files = store.list("")
        found = {file.path for file in files}
        unfinished = _unfinished(store) if MERGE_RECORD in found and CONFIG not in found else set()
        others = sorted(found - unfinished)
        if others:
            raise UserError(
                f"{store.root} is not empty: it holds {others[0]}"
                + (f" and {len(others) - 1} more" if len(others) > 1 else ""),
                hint="name a new folder; nothing is ever overwritten",
            )
        new = cls(store, [*files, *_leftovers(store)], on_bytes=on_bytes)
        path = new.local_path()
        if files and path is not None and is_locked(path / LOCK):
            raise new._taken()
        return new

    def begin(self, names: Iterable[str]) -> None:
        """Remove what is unfinished, and say which files will lie here. UserError when another merge is at work here.

        Where there are no locks, an unfinished merge is looked at for PATIENCE_SECONDS, in which a living one beats.
        """
        path = self.local_path()
        try:
            self._lock = FolderLock.take(path) if path is not None else None
        except BlockingIOError:
            raise self._taken() from None
        if self._earlier_record is not None and self._lock is None:
            self._watch()
        if self.unfinished and self._store.read_or_none(MERGE_RECORD) != self._earlier_record:
            raise self._taken()
        for name in sorted(self.unfinished, key=MERGE_RECORD.__eq__):  # the record last: it explains the rest
            self._store.delete(name)
        self._names = sorted({*names, INDEX, CONFIG, MERGE_RECORD})
        if not self._store.create_once(MERGE_RECORD, self._record({"isComplete": False})):
            raise self._taken()
        self._note(MERGE_RECORD)
        if self._lock is None:
            self._beating = threading.Thread(target=self._keep_beating, name="beat", daemon=True)
            self._beating.start()

    def beat(self) -> None:
        """Say that this merge lives. UserError when another one has taken over."""
        self._check_mine()
        self._num_beats += 1
        self._store.write(MERGE_RECORD, self._record({"isComplete": False}))
        self._note(MERGE_RECORD)

    @contextlib.contextmanager
    def open_file(self, name: str) -> Iterator[Sink]:
        """Stream a file."""
        self._written[name] = None
        with self._store.open_write(name) as sink:
            yield _Counted(sink, self._on_bytes)
            self._check_mine()  # with it the file appears
        self._note(name)

    def write_file(self, name: str, data: bytes) -> None:
        """Write a small file; the index is kept for the end."""
        if name == INDEX:
            self._index = data
            return
        self._written[name] = None
        self._store.write(name, data)
        self._note(name)
        self._on_bytes(len(data))

    def finish(self, report: Mapping[str, Any], config: bytes) -> None:
        """Write the index, the record in full, and config.json, which makes the folder a model.

        UserError when another merge has written here meanwhile.
        """
        self._stop_beating()
        self._check_mine()  # the record changes with each beat, whose answer may have been lost
        others = ((name, stat) for name, stat in self._written.items() if name != MERGE_RECORD)
        if any(stat is None or self._store.stat(name) != stat for name, stat in others):
            raise self._taken()
        if self._index is not None:
            self._written[INDEX] = None
            self._store.write(INDEX, self._index)
        self._store.write(MERGE_RECORD, self._record({"isComplete": True, **report}))
        self._written[CONFIG] = None
        self._store.write(CONFIG, config)
        self._release()

    def local_path(self) -> Path | None:
        """Where the folder lies on this machine, None for stores elsewhere."""
        return self._store.local_path("")

    def discard(self) -> str:
        """Remove what was written, the record last; what could not be removed, or ""."""
        self._stop_beating()
        try:
            if self._written and _writer_of(self._store) != self._writer:
                return ""  # another merge has begun anew here: what lies there is its own
            for name in (*(file.path for file in _leftovers(self._store)), *reversed(self._written)):
                self._store.delete(name)
        except WarpctlError as error:
            return error.message
        finally:
            self._release()
        return ""

    def _watch(self) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, BEAT_SECONDS / 3))
            if self._store.read_or_none(MERGE_RECORD) != self._earlier_record:
                raise self._taken()

    def _keep_beating(self) -> None:
        while not self._has_ended.wait(BEAT_SECONDS):
            with contextlib.suppress(Exception):  # who was taken for dead hears of it at the next file
                self.beat()

    def _stop_beating(self) -> None:
        self._has_ended.set()
        if self._beating is not None:
            self._beating.join()

    def _check_mine(self) -> None:
        if _writer_of(self._store) != self._writer:
            raise self._taken()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _note(self, name: str) -> None:
        self._written[name] = self._store.stat(name)

    def _taken(self) -> UserError:
        return UserError(f"another merge writes into {self.uri}", hint="wait for it, or name a new folder")

    def _record(self, report: Mapping[str, Any]) -> bytes:
        record = {"warpctlMerge": 1, "writer": self._writer, "files": self._names, **report}
        if self._num_beats and not report["isComplete"]:
            record["beats"] = self._num_beats
        return (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()


class _Counted:
    """A stream that tells how much went through it."""

    def __init__(self, sink: Sink, on_bytes: OnBytes) -> None:
        self._sink = sink
        self._on_bytes = on_bytes

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        self._sink.write(data)
        num_bytes = memoryview(data).nbytes
        self._on_bytes(num_bytes)
        return num_bytes


def _leftovers(store: Store) -> list[FileStat]:
    """What nobody sees of writes that never ended."""
    return [file for file in store.leftovers("") if file.path != LOCK]


def _unfinished(store: Store) -> set[str]:
    """The files that the record of a merge names; none if it is not ours."""
    try:
        record = json.loads(store.read(MERGE_RECORD))
        is_ours = record["warpctlMerge"] and not record["isComplete"]
        return {str(name) for name in record["files"]} if is_ours else set()
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        return set()


def _writer_of(store: Store) -> str:
    """Who has begun in this folder; "" if nobody has."""
    try:
        return str(json.loads(store.read(MERGE_RECORD))["writer"])
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        return ""
