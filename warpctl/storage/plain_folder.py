"""Model folders without a manifest, as Hugging Face keeps them: one that is read, one that is written.

Nothing says what such a folder should hold, so a reader compares sizes and times before and after, and a writer leaves the
file without which the folder is no model for the end.
"""

from __future__ import annotations

import contextlib
import functools
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from warpctl.errors import InputError, UserError, WarpctlError
from warpctl.storage.backend import FileStat, Sink
from warpctl.storage.file_names import CONFIG, INDEX, MERGE_RECORD
from warpctl.storage.parallel import run_all
from warpctl.storage.store import Store
from warpctl.storage.uploads import PART_BYTES

OnBytes = Callable[[int], None]
"""Told how many bytes were just read or written."""


def _untold(_num_bytes: int) -> None:
    return


class PlainFolder:
    """The files of a folder as they were when it was opened."""

    def __init__(self, store: Store, files: Mapping[str, FileStat], *, on_bytes: OnBytes) -> None:
        self.uri = store.root
        self._store = store
        self._files = files
        self._on_bytes = on_bytes
        self._used: set[str] = set()

    @classmethod
    def open(cls, uri: str, *, on_bytes: OnBytes = _untold) -> Self:
        """List the folder; InputError when there is nothing in it."""
        store = Store.open(uri)
        files = {file.path: file for file in store.list("")}
        if not files:
            raise InputError(
                f"there is no model folder at {store.root}, or nothing that may be read in it",
                hint="name the folder or prefix that holds model.safetensors and config.json",
            )
        return cls(store, files, on_bytes=on_bytes)

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """Names of the files that start with `prefix`, sorted."""
        return tuple(sorted(name for name in self._files if name.startswith(prefix)))

    def entry(self, name: str) -> FileStat:
        """Size and time of a file when the folder was opened; InputError when there is none of this name."""
        if name not in self._files:
            raise InputError(f"there is no {self._store.uri(name)}", hint="get the checkpoint again")
        return self._files[name]

    def read(self, name: str) -> bytes:
        """The whole file."""
        return self.read_range(name, 0, self.entry(name).size)

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of a file, cut at its end; InputError when they are not there any more."""
        end = min(end, self.entry(name).size)
        self._used.add(name)
        try:
            data = self._store.read_range(name, start, end)
        except FileNotFoundError:
            raise self._changed(name) from None
        if len(data) != max(end - start, 0):
            raise self._changed(name)
        self._on_bytes(len(data))
        return data

    def read_into(self, name: str, start: int, end: int, target: memoryview) -> None:
        """Fill `target`, which has `end - start` bytes, with that range, several parts at once; InputError as above."""
        self._used.add(name)

        def fill(part: int) -> None:
            piece = target[part : part + PART_BYTES]
            try:
                num_bytes = self._store.read_into(name, start + part, piece)
            except FileNotFoundError:
                raise self._changed(name) from None
            if num_bytes != len(piece):
                raise self._changed(name)
            self._on_bytes(num_bytes)

        jobs = [functools.partial(fill, part) for part in range(0, end - start, PART_BYTES)]
        run_all(jobs, parallel=self._store.parallel_reads)

    def check_unchanged(self) -> None:
        """InputError names a file that was read and that has another size or time now."""
        now = {file.path: file for file in self._store.list("")}
        for name in sorted(self._used):
            if now.get(name) != self._files[name]:
                raise self._changed(name)

    def _changed(self, name: str) -> InputError:
        return InputError(
            f"{self._store.uri(name)} changed while it was read", hint="run again when nobody writes to it any more"
        )


class NewFolder:
    """A folder that is being written. Its record (merge.json) comes first and says what will lie there; config.json last.

    So a folder with our record and without config.json is one that was never finished, and may be written anew.
    """

    def __init__(self, store: Store, unfinished: Iterable[str], *, on_bytes: OnBytes) -> None:
        self.uri = store.root
        self.unfinished = tuple(unfinished)
        self._earlier_writer = _writer_of(store) if self.unfinished else ""
        """Files of an earlier merge that never ended; `begin` removes them."""
        self._store = store
        self._on_bytes = on_bytes
        self._names: list[str] = []
        self._written: dict[str, FileStat | None] = {}
        """What this merge has put there, and how it was then."""
        self._writer = uuid.uuid4().hex
        self._index: bytes | None = None

    @classmethod
    def open(cls, uri: str, *, on_bytes: OnBytes = _untold) -> Self:
        """UserError unless the folder is absent, empty, or holds what an unfinished merge left. Changes nothing."""
        store = Store.open(uri)
        found = [file.path for file in store.list("")]
        unfinished = _unfinished(store) if MERGE_RECORD in found and CONFIG not in found else set()
        others = sorted(set(found) - unfinished)
        if others:
            raise UserError(
                f"{store.root} is not empty: it holds {others[0]}"
                + (f" and {len(others) - 1} more" if len(others) > 1 else ""),
                hint="name a new folder; nothing is ever overwritten",
            )
        leftovers = [file.path for file in store.leftovers("")] if found else []
        return cls(store, [*found, *leftovers], on_bytes=on_bytes)

    def begin(self, names: Iterable[str]) -> None:
        """Remove what is unfinished, and say which files will lie here. UserError when another merge was quicker."""
        if self.unfinished and _writer_of(self._store) != self._earlier_writer:
            raise self._taken()
        for name in sorted(self.unfinished, key=MERGE_RECORD.__eq__):  # the record last: it explains the rest
            self._store.delete(name)
        self._names = sorted({*names, INDEX, CONFIG, MERGE_RECORD})
        if not self._store.create_once(MERGE_RECORD, self._record({"isComplete": False})):
            raise self._taken()
        self._note(MERGE_RECORD)

    @contextlib.contextmanager
    def open_file(self, name: str) -> Iterator[Sink]:
        """Stream a file."""
        self._written[name] = None
        with self._store.open_write(name) as sink:
            yield _Counted(sink, self._on_bytes)
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
        if any(stat is None or self._store.stat(name) != stat for name, stat in self._written.items()):
            raise self._taken()
        if self._index is not None:
            self._written[INDEX] = None
            self._store.write(INDEX, self._index)
        self._store.write(MERGE_RECORD, self._record({"isComplete": True, **report}))
        self._written[CONFIG] = None
        self._store.write(CONFIG, config)

    def local_path(self) -> Path | None:
        """Where the folder lies on this machine, None for stores elsewhere."""
        return self._store.local_path("")

    def discard(self) -> str:
        """Remove what was written, the record last; what could not be removed, or ""."""
        try:
            if self._written and _writer_of(self._store) != self._writer:
                return ""  # another merge has begun anew here: what lies there is its own
            for name in reversed(self._written):
                self._store.delete(name)
        except WarpctlError as error:
            return error.message
        return ""

    def _note(self, name: str) -> None:
        self._written[name] = self._store.stat(name)

    def _taken(self) -> UserError:
        return UserError(f"another merge writes into {self.uri}", hint="wait for it, or name a new folder")

    def _record(self, report: Mapping[str, Any]) -> bytes:
        record = {"warpctlMerge": 1, "writer": self._writer, "files": self._names, **report}
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
