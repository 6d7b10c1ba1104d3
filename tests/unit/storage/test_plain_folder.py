"""Folders without a manifest: what is read stays what it was, what is written is a model only when it is whole."""

from __future__ import annotations

import json

import pytest

from warpctl.errors import InputError, UserError
from warpctl.storage.file_names import CONFIG, INDEX, MERGE_RECORD
from warpctl.storage.plain_folder import NewFolder, PlainFolder
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


def test_index_and_config_come_last(disk: Store) -> None:
    new = NewFolder.open(disk.root)
    new.begin(["model.safetensors", "tokenizer.json"])
    assert json.loads(disk.read(MERGE_RECORD))["isComplete"] is False
    new.write_file(INDEX, b"index")
    with new.open_file("model.safetensors") as sink:
        sink.write(b"weights")
    assert [file.path for file in disk.list("")] == [MERGE_RECORD, "model.safetensors"]

    new.finish({"figure": 1}, b"config")

    assert (disk.read(INDEX), disk.read(CONFIG)) == (b"index", b"config")
    record = json.loads(disk.read(MERGE_RECORD))
    assert (record["isComplete"], record["figure"]) == (True, 1)
    assert record["files"] == sorted([MERGE_RECORD, INDEX, CONFIG, "model.safetensors", "tokenizer.json"])
    with pytest.raises(UserError, match=r"is not empty: it holds config.json and 3 more"):
        NewFolder.open(disk.root)


def test_what_was_written_can_be_taken_back(disk: Store) -> None:
    new = NewFolder.open(disk.root)
    new.begin([])
    new.write_file("tokenizer.json", b"{}")

    assert new.discard() == ""
    assert disk.list("") == []


def test_an_unfinished_folder_is_emptied_with_its_record_last(disk: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    NewFolder.open(disk.root).begin(["model.safetensors"])
    disk.write("model.safetensors", b"half")
    deleted: list[str] = []
    real = Store.delete
    monkeypatch.setattr(Store, "delete", lambda store, path: (deleted.append(path), real(store, path)))

    again = NewFolder.open(disk.root)
    again.begin([])

    assert deleted == ["model.safetensors", MERGE_RECORD]
    assert [file.path for file in disk.list("")] == [MERGE_RECORD]


def test_of_two_that_begin_at_once_the_second_is_refused(disk: Store) -> None:
    one, two = NewFolder.open(disk.root), NewFolder.open(disk.root)
    one.begin([])

    with pytest.raises(UserError, match="another merge writes into"):
        two.begin([])
    two.discard()
    assert [file.path for file in disk.list("")] == [MERGE_RECORD]


def test_a_merge_that_another_one_took_for_dead_says_so_and_touches_nothing(disk: Store) -> None:
    slow = NewFolder.open(disk.root)
    slow.begin(["model.safetensors"])
    slow.write_file("model.safetensors", b"slow")
    quick = NewFolder.open(disk.root)
    quick.begin(["model.safetensors"])
    quick.write_file("model.safetensors", b"quick")

    with pytest.raises(UserError, match="another merge writes into"):
        slow.finish({}, b"config")
    assert slow.discard() == ""
    quick.finish({}, b"config")

    assert (disk.read("model.safetensors"), disk.read(CONFIG)) == (b"quick", b"config")


def test_weights_that_another_merge_has_replaced_become_no_model(disk: Store) -> None:
    slow = NewFolder.open(disk.root)
    slow.begin(["model.safetensors"])
    quick = NewFolder.open(disk.root)
    quick.begin(["model.safetensors"])
    quick.write_file("model.safetensors", b"quick")
    slow.write_file("model.safetensors", b"slow!")

    with pytest.raises(UserError, match="another merge writes into"):
        quick.finish({}, b"config")

    assert disk.stat(CONFIG) is None


def test_of_two_that_saw_the_same_leftovers_the_second_deletes_nothing(disk: Store) -> None:
    NewFolder.open(disk.root).begin(["model.safetensors"])
    one, two = NewFolder.open(disk.root), NewFolder.open(disk.root)
    one.begin(["model.safetensors"])
    one.write_file("model.safetensors", b"one")

    with pytest.raises(UserError, match="another merge writes into"):
        two.begin(["model.safetensors"])

    assert disk.read("model.safetensors") == b"one"


@pytest.mark.parametrize("record", [b"{", b"[]", b"{}", b'{"files": ["mine.txt"]}', b'{"warpctlMerge": 1}'])
def test_a_record_that_is_not_ours_explains_nothing(disk: Store, record: bytes) -> None:
    disk.write(MERGE_RECORD, record)
    disk.write("mine.txt", b"mine")

    with pytest.raises(UserError, match=r"is not empty: it holds merge.json and 1 more"):
        NewFolder.open(disk.root)
