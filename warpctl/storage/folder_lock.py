"""A lock on a folder: a file in it that no listing shows, locked as long as its process lives. NFS locks files, too, not folders."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Final, Self

from warpctl.storage.backend import TEMPORARY_PREFIX

LOCK: Final = f"{TEMPORARY_PREFIX}lock"
_LOOKED_AT_SECONDS = 0.05
"""Who only looks whether a folder is locked has its lock for less."""


class FolderLock:
    """An exclusive lock that is held."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Path) -> Self | None:
        """Make the folder and lock it; BlockingIOError when somebody else has it, None where files cannot be locked."""
        path = folder / LOCK
        try:
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    with contextlib.suppress(PermissionError):  # another user's, who has done it
                        os.fchmod(descriptor, 0o666)  # whoever may write into the folder must see that it is locked
                    _lock(descriptor)
                    if _is_same(path, descriptor):  # else its last holder has just removed it
                        return cls(path, descriptor)
                except BlockingIOError:
                    os.close(descriptor)
                    raise
                except OSError:  # no locks here: the file is of no use
                    path.unlink(missing_ok=True)
                    os.close(descriptor)
                    raise
                except BaseException:  # interrupted, perhaps while it is somebody else's
                    os.close(descriptor)
                    raise
                os.close(descriptor)
        except BlockingIOError:
            raise
        except OSError:
            return None  # whatever is wrong there: who writes will say it better

    def release(self) -> None:
        """Once or more often."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = -1


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock of a file; a shared probe, so that two observers never see each other."""
    try:
        probe = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(probe)
    return False


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_LOOKED_AT_SECONDS)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
