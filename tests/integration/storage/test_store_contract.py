"""What every backend of the Store promises, against real ones: a folder, memory, fake-gcs-server and moto."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.storage.conftest import Place
from warpctl.errors import StoreDeniedError, UserError
from warpctl.storage.store import Store

pytestmark = pytest.mark.integration

RACERS = 8
NUM_RACES = {"file": 300, "memory": 300, "gs": 60, "s3": 40}


def test_what_was_written_is_read_and_an_absent_file_is_absent(store):
    store.write("a/b.bin", b"\x00\xffpayload")

    assert store.read("a/b.bin") == b"\x00\xffpayload"
    assert store.read_or_none("a/absent") is None
    assert store.stat("a/absent") is None
    assert store.stat("a") is None
    with pytest.raises(FileNotFoundError, match="a/absent"):
        store.read("a/absent")
    with pytest.raises(FileNotFoundError, match="a/absent"):
        store.read_range("a/absent", 0, 1)


def test_the_last_write_counts(store):
    store.write("a", b"long old content")
    store.write("a", b"new")

    assert store.read("a") == b"new"
    assert store.stat("a").size == 3


def test_an_empty_file_is_a_file(store):
    store.write("empty", b"")
    with store.open_write("streamed"):
        pass

    assert store.read("empty") == b""
    assert store.read("streamed") == b""
    assert [file.path for file in store.list("")] == ["empty", "streamed"]


def test_a_range_ends_where_the_file_ends(store):
    store.write("a", b"0123456789")

    assert store.read_range("a", 2, 5) == b"234"
    assert store.read_range("a", 8, 20) == b"89"
    assert store.read_range("a", 10, 12) == b""
    assert store.read_range("a", 50, 60) == b""
    assert store.read_range("a", 5, 5) == b""


def test_a_listing_is_recursive_sorted_and_stops_at_the_folder(store):
    for path in ("runs/x/2", "runs/x/1", "runs/x/deep/er/3", "runs/xy/4", "other"):
        store.write(path, path.encode())

    assert [(file.path, file.size) for file in store.list("runs/x")] == [
        ("runs/x/1", 8),
        ("runs/x/2", 8),
        ("runs/x/deep/er/3", 16),
    ]
    assert len(store.list("")) == 5
    assert store.list("absent") == []
    assert store.list("runs/x/1") == []
    assert all(file.modified.tzinfo is not None for file in store.list(""))


def test_deleting_twice_is_fine(store):
    for path in ("t/1", "t/u/2", "tt"):
        store.write(path, b"x")

    store.delete("tt")
    store.delete("tt")
    store.delete_tree("t")
    store.delete_tree("t")

    assert store.list("") == []


@pytest.mark.parametrize("name", ["with space", "100%25", "a#1", "q?x=1", "[1]*", "\u00fc\u4e2d", "a+b&c=d;e", "~x"])
def test_names_that_need_quoting_come_back_as_they_were(store, name):
    path = f"files/{name}/{name}.json"

    store.write(path, b"1")
    with store.open_write(f"{path}.2") as file:
        file.write(b"2")

    assert store.create_once(path, b"other") is False
    assert store.read(path) == b"1"
    assert store.stat(path).size == 1
    assert [file.path for file in store.list("files")] == [path, f"{path}.2"]
    store.delete_tree("files")
    assert store.list("files") == []


@pytest.mark.parametrize("path", ["/absolute", "a//b", "../up", "a/../../up", "a/", "./a"])
def test_paths_that_could_leave_the_root_are_refused(store, path):
    with pytest.raises(ValueError, match="not a path relative"):
        store.write(path, b"x")


def test_the_root_opens_the_same_store_and_uris_are_absolute(store):
    store.write("a/b", b"x")

    assert Store.open(store.root).read("a/b") == b"x"
    assert store.uri("a/b") == f"{store.root}/a/b"


def test_exactly_one_of_many_racing_creators_wins_and_its_bytes_are_there(store):
    num_races = NUM_RACES[store.root.split(":")[0]]
    start = threading.Barrier(RACERS)

    def race(racer):
        start.wait()
        return [store.create_once(f"race/{n}", f"racer {racer} of race {n}".encode()) for n in range(num_races)]

    with ThreadPoolExecutor(RACERS) as pool:
        won = list(pool.map(race, range(RACERS)))

    for n in range(num_races):
        winners = [racer for racer in range(RACERS) if won[racer][n]]
        assert len(winners) == 1, f"race {n} has winners {winners}"
        assert store.read(f"race/{n}") == f"racer {winners[0]} of race {n}".encode()
    assert len(store.list("race")) == num_races
    assert store.leftovers("") == []


def test_a_second_creator_loses_and_the_first_may_ask_again(store):
    assert store.create_once("marker", b"attempt 1") is True
    assert store.create_once("marker", b"attempt 2") is False
    assert store.create_once("marker", b"attempt 1") is True
    assert store.read("marker") == b"attempt 1"


def test_a_probe_of_a_good_store_says_nothing_and_leaves_nothing(store):
    store.probe()

    assert store.list("") == []


def test_a_streamed_file_appears_when_it_is_complete(store):
    block = bytes(range(256)) * 4096
    with store.open_write("a/big.bin") as file:
        for _ in range(40):  # 40 MiB: several upload requests
            file.write(block)
            assert store.stat("a/big.bin") is None

    assert store.stat("a/big.bin").size == 40 * len(block)
    assert store.read_range("a/big.bin", 39 * len(block) - 3, 39 * len(block) + 3) == b"\xfd\xfe\xff\x00\x01\x02"


@pytest.mark.parametrize("size", [0, 10, 300_000, 36 * 2**20])
def test_an_aborted_stream_leaves_nothing(store, size):
    class StoppedError(Exception):
        pass

    def stop():
        with store.open_write("a/partial") as file:
            file.write(bytes(size))
            raise StoppedError

    with pytest.raises(StoppedError):
        stop()
    gc.collect()  # fsspec's files upload what they hold when they are finalised

    assert store.stat("a/partial") is None
    assert store.list("") == []
    assert store.leftovers("") == []


def test_an_aborted_stream_leaves_the_file_that_was_there(store):
    store.write("a", b"old")

    with pytest.raises(KeyError), store.open_write("a") as file:
        file.write(b"new")
        raise KeyError

    assert store.read("a") == b"old"


def test_a_reader_during_writes_sees_one_whole_version(store):
    versions = {n: bytes([n]) * (n * 1000 + 1) for n in range(1, 40)}
    store.write("view.json", versions[1])
    writing = threading.Event()
    seen = []

    def read():
        while not writing.is_set():
            seen.append(store.read("view.json"))

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for data in versions.values():
            store.write("view.json", data)
        writing.set()
        for reader in readers:
            reader.result()

    assert seen
    assert set(seen) <= set(versions.values())
    assert store.read("view.json") == versions[39]


def test_listing_and_deleting_beside_writers_never_fails(store, place):
    num_files = 30 if place.proxy else 150

    def write(writer):
        for n in range(num_files):
            store.write(f"busy/{writer}/{n % 7}/{n}", b"x")

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, n) for n in range(3)]
        while not all(writer.done() for writer in writers):
            store.delete_tree("busy")
        for writer in writers:
            writer.result()

    store.delete_tree("busy")
    assert store.list("busy") == []


def test_a_file_of_the_same_store_is_copied_without_streaming(store):
    store.write("source/weights", b"weights")

    assert store.copy_in(store.uri("source/weights"), "copy/weights") is True
    assert store.read("copy/weights") == b"weights"


@pytest.mark.parametrize(
    "uri", ["https://host.invalid/x", "gs://another-bucket/x", "s3://another-bucket/x", "hf://a/b"]
)
def test_a_file_elsewhere_is_left_to_the_caller(store, uri):
    assert store.copy_in(uri, "copy") is False
    assert store.stat("copy") is None


def test_only_a_local_store_has_local_paths(store, place):
    store.write("a", b"x")

    path = store.local_path("a")

    assert (path is not None) == place.uri.startswith("/")
    assert path is None or path.read_bytes() == b"x"


def _stream(store, size):
    with store.open_write("a") as file:
        file.write(bytes(size))


@pytest.mark.parametrize(
    "operation",
    [
        lambda store: store.read("a"),
        lambda store: store.read_or_none("a"),
        lambda store: store.read_range("a", 0, 1),
        lambda store: store.stat("a"),
        lambda store: store.list("a"),
        lambda store: store.write("a", b""),
        lambda store: store.create_once("a", b""),
        lambda store: store.probe(),
        lambda store: _stream(store, 10),
        lambda store: _stream(store, 40_000_000),
    ],
    ids=[
        "read",
        "read_or_none",
        "read_range",
        "stat",
        "list",
        "write",
        "create_once",
        "probe",
        "small stream",
        "stream",
    ],
)
def test_a_missing_bucket_is_final_and_names_identity_and_uri(cloud, operation):
    scheme = cloud.uri.split("://")[0]
    store = Place(f"{scheme}://no-such-bucket/x", cloud.proxy).open()

    with pytest.raises(StoreDeniedError, match=f"{scheme}://no-such-bucket/x") as caught:
        operation(store)

    assert {"gs": "anonymous", "s3": "access key testing"}[scheme] in str(caught.value)
    assert caught.value.hint


def test_a_store_that_cannot_create_once_fails_its_probe(cloud):
    from tests.servers.fault_proxy import Fault

    cloud.proxy.fail(Fault(forget_precondition=True), times=99)

    with pytest.raises(UserError, match="cannot create an object only once"):
        cloud.open().probe()


def test_a_folder_that_one_may_not_enter_is_denied(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StoreDeniedError, match="cannot write") as caught:
        Store.open(str(tmp_path / "file" / "store")).write("a", b"x")

    assert "as user" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
