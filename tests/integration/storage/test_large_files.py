"""Large files on every backend: parts and ranges side by side, in bounded memory, compared by checksum, whatever breaks."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from tests.servers.fault_proxy import Fault
from warpctl.errors import CorruptError, StoreUnavailableError
from warpctl.storage.artifact import Artifact
from warpctl.storage.chunk_hasher import CHUNK_BYTES
from warpctl.storage.uploads import PART_BYTES

pytestmark = pytest.mark.integration

MIB = 2**20
KEY = "k" * 64
SIZE = 3 * PART_BYTES + 5
PARTS = {"gs": "-0000", "s3": "partNumber"}
"""What the request for a part has in its target: on GCS the end of a temporary name."""
DATA = np.random.default_rng(1).bytes(SIZE)


def publish(place, attempt, data=DATA):
    """An artifact of one file, written in pieces that fit no part."""
    publication = attempt(place.open(), "attempt-1")
    with publication.open_file("weights") as file:
        for start in range(0, len(data), 7 * MIB + 3):
            file.write(memoryview(data)[start : start + 7 * MIB + 3])
    publication.commit()
    return Artifact.load(place.open(), "import", KEY)


def test_bytes_and_ranges_around_chunk_edges_are_those_that_were_written(place, attempt):
    artifact = publish(place, attempt)

    assert artifact.read("weights") == DATA
    edges = [0, CHUNK_BYTES, 2 * CHUNK_BYTES, SIZE]
    for edge in edges:
        for first, last in ((-1, 1), (-1, 0), (0, 1), (1, CHUNK_BYTES - 1)):
            start, end = max(edge + first, 0), max(edge + last, 0)
            assert artifact.read_range("weights", start, end) == DATA[start:end]


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES])
def test_a_file_ends_anywhere_in_a_part(place, size):
    store = place.open()
    with store.open_write("file") as sink:
        assert sink.write(memoryview(DATA)[:size]) == size

    assert store.stat("file").size == size
    assert store.read("file") == DATA[:size]


def test_a_producer_may_use_its_memory_again_at_once(place):
    block = bytearray(5 * MIB)
    store = place.open()
    with store.open_write("file") as sink:
        for n in range(16):
            block[:] = bytes([n]) * len(block)
            sink.write(block)

    assert store.read("file") == b"".join(bytes([n]) * len(block) for n in range(16))


def test_ranges_are_asked_for_side_by_side_and_no_more_than_eight(cloud, attempt):
    artifact = publish(cloud, attempt, DATA + DATA)
    cloud.proxy.clear()
    cloud.proxy.fail(Fault(delay_seconds=0.2), method="GET", times=99)

    threads = [threading.Thread(target=artifact.read, args=("weights",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert cloud.proxy.most_in_flight == 8
    assert len(cloud.proxy.seen) == 2 * -(-2 * SIZE // CHUNK_BYTES)


def test_the_producer_goes_on_while_a_part_is_sent(cloud):
    """The first part is held up until the producer has filled the second."""
    store = cloud.open()
    filled = threading.Event()
    held = []
    take = cloud.proxy.take

    def hold(method, target):
        if PARTS[cloud.uri[:2]] in target and not held:
            held.append(filled.wait(30))
        return take(method, target)

    cloud.proxy.take = hold
    try:
        with store.open_write("file") as sink:
            sink.write(memoryview(DATA)[:PART_BYTES])
            sink.write(memoryview(DATA)[PART_BYTES : 2 * PART_BYTES])
            filled.set()
            sink.write(memoryview(DATA)[2 * PART_BYTES :])
    finally:
        del cloud.proxy.take

    assert held == [True]
    assert store.read("file") == DATA


def test_parts_are_sent_side_by_side_and_no_more_than_four_of_a_file(cloud):
    store = cloud.open()
    cloud.proxy.fail(Fault(delay_seconds=1.0), contains=PARTS[cloud.uri[:2]], times=99)
    with store.open_write("file") as sink:
        for _ in range(6):
            sink.write(bytes(PART_BYTES))
        most_in_flight = cloud.proxy.most_in_flight

    assert most_in_flight == 4
    assert store.stat("file").size == 6 * PART_BYTES


def test_one_request_in_ten_fails_and_nothing_is_lost(cloud, attempt):
    cloud.proxy.share = 0.1
    cloud.proxy.some_faults = (Fault(status=503), Fault(reset=True), Fault(cut_response=True), Fault(cut_request=True))
    artifact = publish(cloud, attempt)
    for start in range(0, SIZE, CHUNK_BYTES // 2):
        end = min(start + 3 * CHUNK_BYTES // 2, SIZE)
        assert artifact.read_range("weights", start, end) == DATA[start:end]

    assert cloud.proxy.num_failed > 1


@pytest.mark.parametrize("size", [1000, SIZE], ids=["one request", "parts"])
def test_bytes_that_change_on_their_way_are_refused_by_the_server_and_sent_again(cloud, size):
    store = cloud.open()
    cloud.proxy.fail(Fault(alter_request=True), contains=PARTS[cloud.uri[:2]] if size > PART_BYTES else "file")

    with store.open_write("file") as sink:
        sink.write(memoryview(DATA)[:size])

    assert store.read("file") == DATA[:size]
    assert store.leftovers("") == []
    assert cloud.proxy.orders[0].times == 0


def test_bytes_that_always_change_on_their_way_are_never_stored(cloud):
    store = cloud.open()
    cloud.proxy.fail(Fault(alter_request=True), contains=PARTS[cloud.uri[:2]], times=99)

    with pytest.raises(StoreUnavailableError, match="cannot write"), store.open_write("file") as sink:
        sink.write(DATA)

    cloud.proxy.clear()
    assert store.list("") == store.leftovers("") == []


def test_a_range_that_changes_on_its_way_is_read_again_and_a_stored_change_is_named(cloud, attempt):
    artifact = publish(cloud, attempt)
    cloud.proxy.fail(Fault(alter_response=True), method="GET", times=2)

    assert artifact.read("weights") == DATA

    store, entry = cloud.open(), artifact.entry("weights")
    where = 2 * CHUNK_BYTES + 9
    store.write(entry.path, DATA[:where] + bytes([DATA[where] ^ 1]) + DATA[where + 1 :])
    with pytest.raises(CorruptError, match=f"chunk 2 of {len(entry.chunks)}: its bytes were altered"):
        artifact.read("weights")
    assert artifact.read_range("weights", 3 * CHUNK_BYTES, SIZE) == DATA[3 * CHUNK_BYTES :]


def test_truncated_bodies_and_a_truncated_object_are_told_apart(cloud, attempt):
    artifact = publish(cloud, attempt)
    cloud.proxy.fail(Fault(cut_response=True), method="GET", times=3)

    assert artifact.read("weights") == DATA

    cloud.open().write(artifact.entry("weights").path, DATA[: CHUNK_BYTES + 3])
    with pytest.raises(CorruptError, match=f"chunk 1 of 4: 3 bytes are left of {CHUNK_BYTES}"):
        artifact.read("weights")


def test_a_producer_that_fails_while_parts_are_sent_leaves_nothing(cloud):
    store = cloud.open()
    with pytest.raises(KeyError), store.open_write("file") as sink:
        sink.write(DATA)
        raise KeyError

    assert store.list("") == store.leftovers("") == []
    with store.open_write("file") as sink:
        sink.write(b"next")
    assert store.read("file") == b"next"


def test_a_process_that_is_killed_while_it_uploads_leaves_nothing(cloud):
    program = f"""
import os, signal
from warpctl.storage.store import Store
with Store.open({cloud.uri!r}).open_write("file") as sink:
    for _ in range(3):
        sink.write(bytes({PART_BYTES}))
    sink.write(b"1")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False, timeout=120)

    assert killed.returncode == -9
    assert cloud.open().list("") == []


MEMORY = """
import sys
from concurrent.futures import ThreadPoolExecutor
from warpctl.storage.store import Store
from tests.builders.contexts import import_publication
from warpctl.storage.artifact import Artifact
from pathlib import Path
def peak():  # not getrusage: its figure begins with the memory of the process that started this one
    found = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(found.split()[1]) // 1024
store = Store.open(sys.argv[1])
store.read_or_none("connect")
publication = import_publication(store, "attempt-1", key="k" * 64)
before = peak()
block = bytearray(b"x" * 2**20)
with publication.open_file("weights") as sink:
    for n in range(512):
        block[:4] = n.to_bytes(4, "big")
        sink.write(block)
print(peak() - before)
publication.commit()
artifact = Artifact.load(store, "import", "k" * 64)
target = memoryview(bytearray(160 * 2**20))
for start in range(0, 352 * 2**20, 32 * 2**20 + 5):
    artifact.read_into("weights", start, start + len(target), target)
print(peak() - before)
"""


def test_memory_is_bounded_whatever_the_size_of_the_file(cloud, tmp_path):
    """512 MiB pass in at most five parts, of which no library makes copies; ranges add their target and a few chunks."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, cloud.uri], capture_output=True, text=True, check=False, timeout=280
    )

    assert done.returncode == 0, done.stderr[-2000:]
    writing, reading = map(int, done.stdout.split())
    assert writing < 7 * PART_BYTES // MIB
    assert reading < writing + 160 + 8 * CHUNK_BYTES // MIB
