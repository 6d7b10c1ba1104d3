"""Reading an artifact: ranges, verification and the names of things."""

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warpctl.errors import CorruptError, InputError
from warpctl.spec.stage_input import InputArtifact, StageKind
from warpctl.storage.artifact import Artifact, weights_prefix
from warpctl.storage.manifest import FileEntry, Manifest, digest_of


def _artifact(store, files, chunk_bytes=4):
    """An artifact with tiny chunks."""
    entries = []
    for name, data in files.items():
        store.write(f"files/{name}", data)
        chunks = tuple(digest_of(data[i : i + chunk_bytes]) for i in range(0, len(data), chunk_bytes))
        entries.append(FileEntry(name=name, path=f"files/{name}", size=len(data), chunks=chunks))
    manifest = Manifest(
        kind="import",
        key="k",
        attempt_id="a",
        stage_id="import-sft",
        chunk_bytes=chunk_bytes,
        files=tuple(entries),
        content_digest="",
        started_at="",
        ended_at="",
    )
    return Artifact(store, manifest)


def _reads_of(store, monkeypatch):
    """Where the store's reads start, as they come."""
    reads = []
    original = type(store).read_into

    def read_into(self, path, start, target):
        reads.append(start)
        return original(self, path, start, target)

    monkeypatch.setattr(type(store), "read_into", read_into)
    return reads


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=30), ranges=st.lists(st.tuples(st.integers(0, 35), st.integers(0, 35)), max_size=8))
def test_a_range_is_the_slice_of_the_whole(memory, data, ranges):
    artifact = _artifact(memory, {"weights": data})

    assert artifact.read("weights") == data
    for start, end in ranges:
        assert artifact.read_range("weights", start, end) == data[start:end]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(min_size=1, max_size=30), where=st.integers(0, 29), flip=st.integers(1, 255))
def test_one_altered_byte_is_seen_in_its_chunk_and_in_no_other(memory, data, where, flip):
    where %= len(data)
    artifact = _artifact(memory, {"weights": data})
    memory.write("files/weights", data[:where] + bytes([data[where] ^ flip]) + data[where + 1 :])

    chunk = where // 4
    with pytest.raises(CorruptError, match=f"chunk {chunk} of"):
        artifact.read_range("weights", where, where + 1)
    assert artifact.read_range("weights", 0, chunk * 4) == data[: chunk * 4]
    assert artifact.read_range("weights", chunk * 4 + 4, 99) == data[chunk * 4 + 4 :]


def test_a_chunk_is_fetched_once_while_its_neighbours_are_read(memory, monkeypatch):
    artifact = _artifact(memory, {"weights": bytes(16)})
    reads = _reads_of(memory, monkeypatch)

    for start in range(16):
        artifact.read_range("weights", start, start + 1)

    assert reads == [0, 4, 8, 12]


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_every_range_fills_its_target_and_nothing_beside_it(where, request):
    data = bytes(range(1, 15))
    artifact = _artifact(request.getfixturevalue(where), {"weights": data})

    for start in range(len(data) + 1):
        for end in range(start, len(data) + 1):
            buffer = bytearray(b"\xff" * 20)
            artifact.read_into("weights", start, end, memoryview(buffer)[3 : 3 + end - start])
            assert buffer == b"\xff" * 3 + data[start:end] + b"\xff" * (17 - end + start)


@pytest.mark.parametrize(("start", "end", "length"), [(0, 5, 4), (0, 4, 5), (-1, 1, 2), (9, 11, 2), (3, 2, -1)])
def test_a_target_that_does_not_fit_is_a_mistake(memory, start, end, length):
    artifact = _artifact(memory, {"weights": bytes(10)})

    with pytest.raises(ValueError, match="do not fill"):
        artifact.read_into("weights", start, end, memoryview(bytearray(max(length, 0))))


def test_arrays_of_any_type_are_filled(disk):
    artifact = _artifact(disk, {"weights": np.arange(5, dtype=np.float32).tobytes()})
    values = np.empty(4, np.float32)

    artifact.read_into("weights", 4, 20, values.data)

    assert values.tolist() == [1, 2, 3, 4]


def test_whole_chunks_are_read_straight_and_edges_once_for_both_neighbours(memory, monkeypatch):
    artifact = _artifact(memory, {"weights": bytes(range(18))})
    reads = _reads_of(memory, monkeypatch)

    assert artifact.read_range("weights", 0, 10) == bytes(range(10))
    assert artifact.read_range("weights", 10, 18) == bytes(range(10, 18))

    assert sorted(reads) == [0, 4, 8, 12, 16]


def test_readers_of_one_chunk_at_the_same_time_fetch_it_once(memory, monkeypatch):
    artifact = _artifact(memory, {"weights": b"abcdefgh"})
    reads = _reads_of(memory, monkeypatch)
    counted = type(memory).read_into
    waiting = threading.Barrier(5, timeout=30)

    def slow(self, path, start, target):
        waiting.wait()  # the other four have asked for the chunk, or are about to
        return counted(self, path, start, target)

    monkeypatch.setattr(type(memory), "read_into", slow)

    def ask(n):
        if n:
            waiting.wait()
        return artifact.read_range("weights", 1, 3)

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(ask, range(5))) == [b"bc"] * 5
    assert reads == [0]


def test_chunks_are_read_side_by_side_and_no_more_of_them_than_the_store_bears(disk, monkeypatch):
    artifact = _artifact(disk, {"weights": bytes(range(64))})
    monkeypatch.setattr("warpctl.storage.local_files.LocalFiles.parallel_reads", 3)
    now, most, lock = [0], [0], threading.Lock()
    three = threading.Event()
    original = type(disk).read_into

    def read_into(self, path, start, target):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if now[0] == 3:
                three.set()
        assert three.wait(30)
        try:
            return original(self, path, start, target)
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr(type(disk), "read_into", read_into)
    with ThreadPoolExecutor(4) as pool:  # several ranges at once share the bound
        assert list(pool.map(lambda _: artifact.read("weights"), range(4))) == [bytes(range(64))] * 4

    assert most[0] == 3


def test_the_first_corrupt_chunk_is_named_and_nothing_is_written_afterwards(disk):
    data = bytes(range(40))
    artifact = _artifact(disk, {"weights": data})
    disk.write("files/weights", data[:13] + b"X" + data[14:30] + b"X" + data[31:])
    target = bytearray(40)

    with pytest.raises(CorruptError, match="chunk 3 of 10: its bytes were altered"):
        artifact.read_into("weights", 0, 40, memoryview(target))

    before = bytes(target)
    assert artifact.read_range("weights", 16, 28) == data[16:28]
    assert bytes(target) == before


def test_a_chunk_that_changed_on_its_way_is_read_again(memory, monkeypatch):
    artifact = _artifact(memory, {"weights": b"abcdefgh"})
    original = type(memory).read_into
    reads = []

    def altered_once(self, path, start, target):
        num_bytes = original(self, path, start, target)
        if not reads:
            target[0] ^= 1
        reads.append(start)
        return num_bytes

    monkeypatch.setattr(type(memory), "read_into", altered_once)

    assert artifact.read("weights") == b"abcdefgh"
    assert reads == [0, 0, 4]


def test_a_reader_who_waits_hears_of_the_failure_and_the_next_one_tries_again(memory, monkeypatch):
    artifact = _artifact(memory, {"weights": b"abcd"})
    memory.write("files/weights", b"abc")
    with pytest.raises(CorruptError, match="3 bytes are left of 4"):
        artifact.read_range("weights", 0, 2)

    memory.write("files/weights", b"abcd")

    assert artifact.read_range("weights", 0, 2) == b"ab"


def test_a_range_of_many_chunks_is_held_once(memory):
    size = 2**20
    artifact = _artifact(memory, {"weights": bytes(16 * size)}, chunk_bytes=size)
    tracemalloc.start()
    try:
        data = artifact.read("weights")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(data) == 16 * size
    assert peak < 19 * size


@pytest.mark.parametrize("size", [0, 1, 16, 33])
def test_each_chunk_comes_once_with_its_offset(memory, size):
    data = bytes(range(size))
    chunks = {}

    _artifact(memory, {"weights": data}, chunk_bytes=16).for_each_chunk(
        "weights", lambda start, chunk: chunks.setdefault(start, []).append(bytes(chunk))
    )

    assert chunks == {start: [data[start : start + 16]] for start in range(0, size, 16)}


def test_chunks_that_are_used_one_by_one_take_the_memory_of_those_that_are_read_together(disk):
    """However many there are."""
    size, places = 1 << 20, []
    artifact = _artifact(disk, {"weights": bytes(24 * size)}, chunk_bytes=size)
    tracemalloc.start()
    try:
        artifact.for_each_chunk("weights", lambda start, _: places.append(start))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert sorted(places) == list(range(0, 24 * size, size))
    assert peak < (disk.parallel_reads + 2) * size


def test_an_altered_chunk_is_not_used(disk):
    artifact = _artifact(disk, {"weights": b"good" * 4}, chunk_bytes=4)
    disk.write("files/weights", b"goodgoodgooXgood")
    used = []

    with pytest.raises(CorruptError, match="chunk 2 of 4: its bytes were altered"):
        artifact.for_each_chunk("weights", lambda start, _: used.append(start))

    assert 8 not in used


def test_an_unknown_file_is_named_with_what_there_is(memory):
    artifact = _artifact(memory, {"b": b"", "a": b""})

    with pytest.raises(InputError, match=r"import-sft: the artifact has no file c; it has a, b"):
        artifact.read("c")


def test_names_are_sorted_and_cut_by_prefix(memory, tmp_path):
    artifact = _artifact(memory, {"merged/b": b"1", "merged/a": b"2", "next-init/a": b"3"})

    assert artifact.names() == ("merged/a", "merged/b", "next-init/a")
    assert artifact.names("next-init/") == ("next-init/a",)
    folder = artifact.download(tmp_path / "x", prefix="merged/")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"2", "b": b"1"}


def test_a_local_download_takes_no_room(disk, tmp_path):
    artifact = _artifact(disk, {"a": b"12345"})

    folder = artifact.download(tmp_path / "x")

    assert (folder / "a").stat().st_ino == disk.local_path("files/a").stat().st_ino
    assert artifact.download(tmp_path / "x") == folder


def test_a_download_is_complete_or_absent(memory, tmp_path):
    artifact = _artifact(memory, {"a": b"12345678"})
    memory.write("files/a", b"1234567X")

    with pytest.raises(CorruptError):
        artifact.download(tmp_path)

    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("role", "kind", "prefix"),
    [
        ("init", StageKind.MERGE, "next-init/"),
        ("merge", StageKind.MERGE, "merged/"),
        ("init", StageKind.IMPORT, ""),
        ("sft", StageKind.IMPORT, ""),
        ("member/1", StageKind.RL, ""),
        ("control", StageKind.RL, ""),
    ],
)
def test_a_merge_publishes_two_policies_and_others_one(role, kind, prefix):
    assert weights_prefix(InputArtifact(role=role, kind=kind, key="k", manifest_digest="d")) == prefix
