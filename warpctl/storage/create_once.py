"""create_once per backend: of any number of racing creators exactly one wins, and a reader never sees half of the bytes.

Never fsspec's generic mode="create": on local disks and in memory it tests for existence and then writes, and several
threads were seen to win. A refused creator is not always a loser: a response can be lost after the server stored the
bytes, and the repeated request then meets its own object. So after every refusal the bytes are read back; ours (they name
the attempt that wrote them) mean that we won. That part is the same for every backend and sits in `won`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from warpctl.storage.backend import TEMPORARY_PREFIX

T = TypeVar("T")
_TRIES = 20


def in_folder(folder: Path, create: Callable[[], T]) -> T:
    """Run what creates a file in a folder, making the folder first; again when a collection removes it in between."""
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return create()
    raise FileNotFoundError(errno.ENOENT, "the folder vanishes as soon as it is made", str(folder))


def temporary_beside(path: Path) -> Path:
    """A new name in the same folder, thus on the same disk."""
    return path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")


def open_new(path: Path) -> BinaryIO:
    """Open a file that must not exist yet for writing; its folder is made."""
    return in_folder(path.parent, lambda: path.open("xb"))


def sync_folder(folder: Path) -> None:
    """Make a link or rename in this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet, down to the disk."""
    with open_new(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def create_local(path: Path, data: bytes) -> bool:
    """link(2) is atomic and refuses an existing name, also over NFS, where O_EXCL alone would expose a growing file."""
    temporary = temporary_beside(path)
    try:
        write_new(temporary, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    sync_folder(path.parent)
    return True


def create_in_memory(fs: Any, path: str, data: bytes, lock: AbstractContextManager[Any]) -> bool:
    """A lock makes test-and-write one step; all users of a memory store are in one process."""
    with lock:
        if path in fs.store:
            return False
        fs.pipe_file(path, data)
        return True


def create_in_object_store(fs: Any, path: str, data: bytes) -> bool:
    """gcsfs sends ifGenerationMatch=0, s3fs If-None-Match: *; `chunksize` keeps it one request."""
    try:
        fs.pipe_file(path, data, mode="create", chunksize=len(data) + 1)
    except FileExistsError:
        return False
    return True


def won(created: bool, data: bytes, read: Callable[[], bytes]) -> bool:
    """Whether the stored bytes are ours, be it that the answer to our first request was lost."""
    return created or read() == data
