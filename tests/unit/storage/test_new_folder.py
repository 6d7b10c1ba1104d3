"""A folder that a merge writes: a model only when it is whole, and of one merge."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime

import pytest

from warpctl.errors import UserError
from warpctl.storage import new_folder
from warpctl.storage.backend import FileStat
from warpctl.storage.file_names import CONFIG, INDEX, MERGE_RECORD
from warpctl.storage.new_folder import NewFolder
from warpctl.storage.store import Store


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
    first = NewFolder.open(disk.root)
    first.begin(["model.safetensors"])
    killed(first)
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


def test_a_folder_that_a_living_merge_writes_into_is_refused_before_it_is_touched(disk: Store) -> None:
    first, late = NewFolder.open(disk.root), NewFolder.open(disk.root)
    first.begin(["model.safetensors"])
    first.write_file("model.safetensors", b"first")

    with pytest.raises(UserError, match="another merge writes into"):
        NewFolder.open(disk.root)
    with pytest.raises(UserError, match="another merge writes into"):
        late.begin([])
    late.discard()
    first.finish({}, b"config")

    assert (disk.read("model.safetensors"), disk.read(CONFIG)) == (b"first", b"config")


def killed(folder: NewFolder) -> None:
    """As the kernel does for a process that ends."""
    assert folder._lock is not None
    folder._lock.release()


def test_what_a_killed_merge_left_is_removed_by_the_next_one(disk: Store) -> None:
    first = NewFolder.open(disk.root)
    first.begin(["model.safetensors"])
    first.write_file("model.safetensors", b"half")
    killed(first)

    again = NewFolder.open(disk.root)
    assert sum(again.unfinished.values()) == 4 + len(disk.read(MERGE_RECORD))
    again.begin(["model.safetensors"])

    assert [file.path for file in disk.list("")] == [MERGE_RECORD]


def test_what_nobody_sees_of_a_write_that_never_ended_goes_when_a_merge_begins_and_when_it_gives_up(
    disk: Store,
) -> None:
    part = disk.local_path(".tmp-part")
    assert part is not None
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(b"part")
    new = NewFolder.open(disk.root)
    assert new.unfinished == {".tmp-part": 4}
    new.begin([])
    assert not part.exists()

    part.write_bytes(b"part")
    assert new.discard() == ""
    assert not part.exists()


@pytest.fixture
def bucket(memory: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store without locks, where merges beat when they are told to, and have no patience."""
    monkeypatch.setattr(new_folder, "BEAT_SECONDS", 1000.0)
    monkeypatch.setattr(new_folder, "PATIENCE_SECONDS", 0.0)
    return memory


def test_a_bucket_that_a_living_merge_writes_into_is_refused(bucket: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = NewFolder.open(bucket.root)
    first.begin(["model.safetensors"])
    first.write_file("model.safetensors", b"first")
    late = NewFolder.open(bucket.root)
    monkeypatch.setattr(new_folder, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(new_folder.time, "sleep", lambda _seconds: first.beat())

    with pytest.raises(UserError, match="another merge writes into"):
        late.begin(["model.safetensors"])
    assert late.discard() == ""
    first.beat()
    first.finish({}, b"config")

    assert (bucket.read("model.safetensors"), bucket.read(CONFIG)) == (b"first", b"config")
    assert "beats" not in json.loads(bucket.read(MERGE_RECORD))


def test_parts_of_a_write_without_a_record_are_not_waited_for(bucket: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """They beat for nobody."""
    part = FileStat(path=".tmp-part", size=4, modified=datetime.now(UTC))
    deleted: list[str] = []
    monkeypatch.setattr(Store, "leftovers", lambda _store, _prefix: [part])
    monkeypatch.setattr(Store, "delete", lambda _store, path: deleted.append(path))
    monkeypatch.setattr(NewFolder, "_watch", lambda _folder: pytest.fail("watched"))

    NewFolder.open(bucket.root).begin([])

    assert deleted == [".tmp-part"]


def test_a_merge_beats_until_it_ends(bucket: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_folder, "BEAT_SECONDS", 0.01)
    new = NewFolder.open(bucket.root)
    new.begin([])
    until = time.monotonic() + 60
    while json.loads(bucket.read(MERGE_RECORD)).get("beats", 0) < 3:
        assert time.monotonic() < until

    new.finish({}, b"config")

    record = bucket.read(MERGE_RECORD)
    time.sleep(0.05)
    assert bucket.read(MERGE_RECORD) == record
    assert json.loads(record)["isComplete"] is True


def test_a_merge_on_a_disk_has_a_lock_and_needs_no_beats(disk: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_folder, "BEAT_SECONDS", 0.0)
    before = threading.active_count()
    new = NewFolder.open(disk.root)
    new.begin([])

    assert threading.active_count() == before
    new.discard()


def test_a_merge_that_was_taken_for_dead_hears_of_it_and_touches_nothing(bucket: Store) -> None:
    slow = NewFolder.open(bucket.root)
    slow.begin(["a.safetensors", "b.safetensors"])
    slow.write_file("a.safetensors", b"slow")
    quick = NewFolder.open(bucket.root)
    quick.begin(["a.safetensors", "b.safetensors"])
    quick.write_file("a.safetensors", b"quick")

    with pytest.raises(UserError, match="another merge writes into"):
        slow.beat()
    with pytest.raises(UserError, match="another merge writes into"), slow.open_file("b.safetensors") as sink:
        sink.write(b"slow")
    with pytest.raises(UserError, match="another merge writes into"):
        slow.finish({}, b"config")
    assert slow.discard() == ""
    quick.finish({}, b"config")

    assert (bucket.read("a.safetensors"), bucket.read(CONFIG)) == (b"quick", b"config")
    assert bucket.stat("b.safetensors") is None


def test_weights_that_another_merge_has_replaced_become_no_model(bucket: Store) -> None:
    slow = NewFolder.open(bucket.root)
    slow.begin(["model.safetensors"])
    quick = NewFolder.open(bucket.root)
    quick.begin(["model.safetensors"])
    quick.write_file("model.safetensors", b"quick")
    slow.write_file("model.safetensors", b"slow!")

    with pytest.raises(UserError, match="another merge writes into"):
        quick.finish({}, b"config")

    assert bucket.stat(CONFIG) is None


def test_of_two_that_saw_the_same_leftovers_the_second_deletes_nothing(bucket: Store) -> None:
    NewFolder.open(bucket.root).begin(["model.safetensors"])
    one, two = NewFolder.open(bucket.root), NewFolder.open(bucket.root)
    one.begin(["model.safetensors"])
    one.write_file("model.safetensors", b"one")

    with pytest.raises(UserError, match="another merge writes into"):
        two.begin(["model.safetensors"])

    assert bucket.read("model.safetensors") == b"one"


@pytest.mark.parametrize("record", [b"{", b"[]", b"{}", b'{"files": ["mine.txt"]}', b'{"warpctlMerge": 1}'])
def test_a_record_that_is_not_ours_explains_nothing(disk: Store, record: bytes) -> None:
    disk.write(MERGE_RECORD, record)
    disk.write("mine.txt", b"mine")

    with pytest.raises(UserError, match=r"is not empty: it holds merge.json and 1 more"):
        NewFolder.open(disk.root)
