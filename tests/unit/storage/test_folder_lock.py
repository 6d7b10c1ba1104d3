"""One process holds a folder's lock; it leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from warpctl.storage import folder_lock
from warpctl.storage.folder_lock import LOCK, FolderLock, is_locked

HOLD = """
import sys, time
from pathlib import Path
from warpctl.storage.folder_lock import FolderLock
assert FolderLock.take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_one_is_refused_until_the_first_is_released_and_no_file_stays(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    first = FolderLock.take(folder)
    assert first is not None
    assert is_locked(folder / LOCK)
    with pytest.raises(BlockingIOError):
        FolderLock.take(folder)
    first.release()
    first.release()
    assert list(folder.iterdir()) == []
    assert not is_locked(folder / LOCK)
    second = FolderLock.take(folder)
    assert second is not None
    second.release()


def test_the_lock_of_a_killed_process_is_free_and_its_file_is_used_again(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_locked(tmp_path / LOCK)
        with pytest.raises(BlockingIOError):
            FolderLock.take(tmp_path)
        holder.kill()
    assert not is_locked(tmp_path / LOCK)
    lock = FolderLock.take(tmp_path)
    assert lock is not None
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    lock.release()


def test_a_file_that_its_holder_has_just_removed_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening it and locking it: whoever comes next makes a file of its own, and would hold a lock, too."""
    lock, removed = folder_lock._lock, []

    def late(descriptor: int) -> None:
        if not removed:
            removed.append((tmp_path / LOCK).unlink())
        lock(descriptor)

    monkeypatch.setattr(folder_lock, "_lock", late)
    held = FolderLock.take(tmp_path)
    assert held is not None
    assert os.path.samestat((tmp_path / LOCK).stat(), os.fstat(held._descriptor))


def test_who_only_looks_does_not_keep_a_merge_from_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looking = FolderLock.take(tmp_path)
    assert looking is not None
    monkeypatch.setattr(time, "sleep", lambda _: looking.release())
    held = FolderLock.take(tmp_path)
    assert held is not None
    held.release()
