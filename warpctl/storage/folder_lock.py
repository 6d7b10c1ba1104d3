"""A lock on a folder of this machine's disks: it is held as long as its process lives, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Self


class FolderLock:
    """An exclusive lock that is held."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Path) -> Self | None:
        """Make the folder and lock it; BlockingIOError when somebody else has it, None where folders cannot be locked."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:
            return None  # whatever is wrong there: who writes will say it better
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise
            return None
        return cls(descriptor)

    def release(self) -> None:
        """Once or more often."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def is_locked(folder: Path) -> bool:
    """Whether somebody holds the lock of a folder, which must not be us."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False
