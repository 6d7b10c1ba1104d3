"""Folders without a manifest: what is read stays what it was."""

from __future__ import annotations

import pytest

from warpctl.errors import InputError
from warpctl.storage.plain_folder import PlainFolder
from warpctl.storage.store import Store


@pytest.fixture
def folder(disk: Store) -> Store:
    disk.write("a.bin", b"0123456789")
    disk.write("sub/b.bin", b"bb")
    return disk


def test_files_are_read_in_ranges_and_counted(folder: Store) -> None:
    counted: list[int] = []
    files = PlainFolder.open(folder.root, on_bytes=counted.append)

    assert files.names() == ("a.bin", "sub/b.bin")
    assert files.names("sub/") == ("sub/b.bin",)
    assert files.entry("a.bin").size == 10
    assert (files.read_range("a.bin", 2, 5), files.read_range("a.bin", 8, 99), files.read("sub/b.bin")) == (
        b"234",
        b"89",
        b"bb",
    )
    assert counted == [3, 2, 2]
    files.check_unchanged()


def test_an_empty_place_and_a_missing_file_are_named(folder: Store, disk: Store) -> None:
    with pytest.raises(InputError, match=r"there is no model folder at .*/nowhere"):
        PlainFolder.open(f"{disk.root}/nowhere")
    with pytest.raises(InputError, match=r"there is no .*/c.bin"):
        PlainFolder.open(folder.root).entry("c.bin")


def test_a_file_that_was_read_may_not_change(folder: Store) -> None:
    files = PlainFolder.open(folder.root)
    files.read("a.bin")
    folder.write("sub/b.bin", b"never read")
    folder.write("new.bin", b"")
    files.check_unchanged()

    folder.write("a.bin", b"9876543210")
    with pytest.raises(InputError, match=r"a.bin changed while it was read"):
        files.check_unchanged()
    folder.delete("a.bin")
    with pytest.raises(InputError, match=r"a.bin changed while it was read"):
        files.check_unchanged()


@pytest.mark.parametrize("change", [lambda store: store.write("a.bin", b"01"), lambda store: store.delete("a.bin")])
def test_a_file_that_shrinks_or_goes_is_noticed_at_once(folder: Store, change) -> None:
    files = PlainFolder.open(folder.root)
    change(folder)

    with pytest.raises(InputError, match=r"a.bin changed while it was read"):
        files.read_range("a.bin", 0, 5)
