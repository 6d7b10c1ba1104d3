"""Model folders without a manifest, as Hugging Face keeps them, to be read (new_folder.py writes one).

Nothing says what such a folder should hold, so a reader compares sizes and times before and after.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Self

from warpctl.errors import InputError
from warpctl.storage.backend import FileStat
from warpctl.storage.mapped_file import MappedFile
from warpctl.storage.parallel import run_all
from warpctl.storage.store import Store
from warpctl.storage.uploads import PART_BYTES

OnBytes = Callable[[int], None]
"""Told how many bytes were just read or written."""


def untold(_num_bytes: int) -> None:
    """Nobody wants to know."""


class PlainFolder:
    """The files of a folder as they were when it was opened."""

    def __init__(self, store: Store, files: Mapping[str, FileStat], *, on_bytes: OnBytes) -> None:
        self.uri = store.root
        self._store = store
        self._files = files
        self._on_bytes = on_bytes
        self._used: set[str] = set()
        self._mapped: dict[str, MappedFile | None] = {}

    @classmethod
    def open(cls, uri: str, *, on_bytes: OnBytes = untold) -> Self:
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

    def view(self, name: str, start: int, end: int) -> memoryview | None:
        """The bytes of that range as they lie in the page cache, soon to be read from the disk; None where they must be read."""
        if name not in self._mapped:
            path = self._store.local_path(name)
            opened = MappedFile.open(path) if path is not None else None
            if opened is not None:
                self._used.add(name)
                if self._store.stat(name) != self.entry(name):
                    opened.close()
                    raise self._changed(name)
            self._mapped[name] = opened
        file = self._mapped[name]
        if file is None:
            return None
        file.prepare(start, end)
        self._on_bytes(end - start)
        return file.view(start, end)

    def forget(self, name: str, start: int, end: int) -> None:
        """The view of that range is not used any more."""
        if (file := self._mapped.get(name)) is not None:
            file.forget(start, end)

    def check_leases(self) -> None:
        """InputError names a file that somebody is about to write to while we have views of it."""
        for name, file in tuple(self._mapped.items()):  # another thread may map one more
            if file is not None and not file.is_leased():
                raise self._changed(name)

    def close(self) -> None:
        """Give up all views: who waits for writing to a file goes on."""
        for file in self._mapped.values():
            if file is not None:
                file.close()
        self._mapped.clear()

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
