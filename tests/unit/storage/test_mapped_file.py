"""Files that are mapped: the same bytes, and nobody cuts them off meanwhile."""

from __future__ import annotations

import mmap
import os
import resource
import threading
from pathlib import Path

import pytest

from warpctl.errors import InputError
from warpctl.storage import mapped_file
from warpctl.storage.mapped_file import MappedFile
from warpctl.storage.plain_folder import PlainFolder

SIZE = 5 * mmap.PAGESIZE + 17
pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="leases are Linux's")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(bytes(range(256)) * (SIZE // 256) + bytes(SIZE % 256))
    return file


def mapped(path: Path) -> MappedFile:
    file = MappedFile.open(path)
    if file is None:
        pytest.skip("no leases on this file system")
    return file


def test_views_are_the_files_bytes_and_read_only_and_stay_right_when_forgotten(path: Path) -> None:
    file, data = mapped(path), path.read_bytes()
    for start, end in [(0, SIZE), (1, 2), (mmap.PAGESIZE - 1, 3 * mmap.PAGESIZE + 1), (7, 7)]:
        file.prepare(start, end)
        view = file.view(start, end)
        assert view == data[start:end]
        assert view.readonly
        file.forget(start, end)
        assert view == data[start:end]
    file.close()


def test_whoever_would_write_waits_until_it_is_closed_and_the_lease_says_so(path: Path) -> None:
    file, cut = mapped(path), threading.Event()

    def cut_off() -> None:
        os.truncate(path, 0)
        cut.set()

    assert file.is_leased()
    writer = threading.Thread(target=cut_off)
    writer.start()
    while file.is_leased():
        pass
    assert not cut.wait(0.2)
    assert bytes(file.view(0, SIZE))[:3] == b"\x00\x01\x02"
    file.close()
    writer.join(10)
    assert cut.is_set()


def test_a_file_that_is_being_written_and_an_empty_one_are_not_mapped(path: Path) -> None:
    mapped(path).close()
    with path.open("ab"):
        assert MappedFile.open(path) is None
    path.write_bytes(b"")
    assert MappedFile.open(path) is None


def test_a_folder_says_which_file_somebody_is_about_to_change(path: Path) -> None:
    mapped(path).close()
    folder = PlainFolder.open(str(path.parent))
    assert folder.view(path.name, 0, 3) == b"\x00\x01\x02"
    folder.check_leases()
    writer = threading.Thread(target=os.truncate, args=(path, 0))
    writer.start()
    with pytest.raises(InputError, match=r"model\.safetensors changed while it was read"):
        while True:
            folder.check_leases()
    folder.close()
    writer.join(10)
    assert path.stat().st_size == 0


def test_of_very_many_files_the_last_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped(path).close()
    monkeypatch.setattr(mapped_file, "_LIMIT_PER_FILE", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    (path.parent / "second").write_bytes(b"abc")
    folder = PlainFolder.open(str(path.parent))
    assert folder.view(path.name, 0, 1) == b"\x00"
    assert folder.view("second", 0, 1) is None
    folder.forget("second", 0, 1)
    folder.forget("never asked for", 0, 1)
    folder.close()


@pytest.mark.parametrize("kind", ["fuse.gcsfuse", "nfs4", "9p"])
def test_what_lies_on_another_machine_is_not_mapped(path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    mapped(path).close()
    device = path.stat().st_dev
    mounts = path.with_name("mountinfo")
    line = f"36 35 {os.major(device)}:{os.minor(device)} / /mnt rw,noatime shared:1 - {{}} /dev/root rw\n"
    monkeypatch.setattr(mapped_file, "_MOUNTS", mounts)
    mounts.write_text(line.format("ext4"))
    mapped(path).close()
    mounts.write_text(line.format(kind))
    assert MappedFile.open(path) is None


def test_what_is_given_up_may_be_mapped_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped(path).close()
    monkeypatch.setattr(mapped_file, "_LIMIT_PER_FILE", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for _ in range(3):
        mapped(path).close()
        with path.open("ab"):
            assert MappedFile.open(path) is None


def test_a_file_that_is_gone_is_left_to_who_reads_it(path: Path) -> None:
    assert MappedFile.open(path.with_name("gone")) is None


def test_a_file_that_was_replaced_before_it_was_mapped_is_refused(path: Path) -> None:
    mapped(path).close()
    folder = PlainFolder.open(str(path.parent))
    path.write_bytes(b"something else")
    with pytest.raises(InputError, match="changed while it was read"):
        folder.view(path.name, 0, 3)
    folder.close()
