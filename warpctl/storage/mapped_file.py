"""A local file whose bytes are used where the page cache has them, without a copy. Linux only; elsewhere files are read.

A mapped file that is cut off would end the process with SIGBUS and no word. So it is mapped under a lease: who would open it to
write to it waits until the lease is given up, for /proc/sys/fs/lease-break-time (45 s) at most, and meanwhile the lease says so.
(fcntl(2), "Leases")
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
from pathlib import Path
from typing import Self


class MappedFile:
    """Read-only bytes of one file."""

    def __init__(self, descriptor: int, mapping: mmap.mmap) -> None:
        self._descriptor = descriptor
        self._mapping = mapping
        self._bytes = memoryview(mapping)

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """None where there is no lease to be had: another system, a network disk, a file that somebody writes to, or not ours."""
        if not hasattr(fcntl, "F_SETLEASE"):
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return None  # who reads it will say it better
        try:
            fcntl.fcntl(
                descriptor, fcntl.F_SETSIG, signal.SIGURG
            )  # ignored unless asked for; SIGIO would end the process
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            return cls(descriptor, mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))  # ValueError: an empty file
        except (OSError, ValueError):
            os.close(descriptor)
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
