"""A local file whose bytes are used where the page cache has them, without a copy. Linux only; elsewhere files are read.

A mapped file that is cut off would end the process with SIGBUS and no word. So it is mapped under a lease: who would open it to
write to it waits until the lease is given up, for /proc/sys/fs/lease-break-time (45 s) at most, and meanwhile the lease says so.
(fcntl(2), "Leases") Only on file systems of this machine: FUSE gives leases, too, which nobody on the other side knows of. A disk
that fails to read still ends the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import resource
import signal
import threading
from pathlib import Path
from typing import Self

_MOUNTS = Path("/proc/self/mountinfo")
_OF_THIS_MACHINE = frozenset({"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"})
_LIMIT_PER_FILE = 4
"""Of the descriptors that a process may have, half are for mapped files."""


class _Mapped:
    """How many files this process has mapped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def claim(self) -> bool:
        """Whether there may be one more."""
        with self._lock:
            may = self._count < resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _LIMIT_PER_FILE
            self._count += may
            return may

    def release(self) -> None:
        with self._lock:
            self._count -= 1


_MAPPED = _Mapped()


class MappedFile:
    """Read-only bytes of one file."""

    def __init__(self, descriptor: int, mapping: mmap.mmap) -> None:
        self._descriptor = descriptor
        self._mapping = mapping
        self._bytes = memoryview(mapping)

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """None where there is no lease to be had: another system, a network disk, a file that somebody writes to, or not ours.

        None also when this process has mapped as many files as it should: each takes two descriptors.
        """
        if not hasattr(fcntl, "F_SETLEASE") or not _is_of_this_machine(path) or not _MAPPED.claim():
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            _MAPPED.release()
            return None  # who reads it will say it better
        try:
            # SIGURG is ignored unless asked for; SIGIO would end the process.
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            return cls(descriptor, mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))  # ValueError: an empty file
        except (OSError, ValueError):
            os.close(descriptor)
            _MAPPED.release()
            return None

    def is_leased(self) -> bool:
        """Whether nobody waits for writing to it. Once it is False, the bytes are not to be used for long."""
        return fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK

    def view(self, start: int, end: int) -> memoryview:
        """Bytes [start, end), read from the disk when they are first used."""
        return self._bytes[start:end]

    def prepare(self, start: int, end: int) -> None:
        """Have these bytes read ahead of their use."""
        if start == end:
            return  # which posix_fadvise takes for all the rest
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._descriptor, start, end - start, os.POSIX_FADV_WILLNEED)

    def forget(self, start: int, end: int) -> None:
        """Count these bytes, a page at each end excepted, as memory of this process no more."""
        first, last = start + -start % mmap.PAGESIZE, end - end % mmap.PAGESIZE
        if first < last:
            self._mapping.madvise(mmap.MADV_DONTNEED, first, last - first)

    def close(self) -> None:
        """Give up the lease. No view may be used after."""
        if self._descriptor >= 0:
            with contextlib.suppress(
                OSError
            ):  # the mapping has a copy of the descriptor: closing ours alone would keep the lease
                fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            os.close(self._descriptor)
            self._descriptor = -1
            _MAPPED.release()


def _is_of_this_machine(path: Path) -> bool:
    """By the type of the file system that holds a file."""
    try:
        device = path.stat().st_dev
        for line in _MOUNTS.read_text().splitlines():
            fields, _, rest = line.partition(" - ")
            if fields.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                return rest.split()[0] in _OF_THIS_MACHINE
    except (OSError, IndexError):
        pass
    return False
