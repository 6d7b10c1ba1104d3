"""Large files on GCS: parts as objects that are composed, whatever fails, and nothing of them for a reader to see."""

import dataclasses
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tests.integration.storage.conftest import QUICK, _at
from tests.servers.fault_proxy import Fault
from warpctl.errors import StoreDeniedError, StoreUnavailableError
from warpctl.storage import gcs, gcs_requests
from warpctl.storage.gc import plan_gc, sweep
from warpctl.storage.uploads import PART_BYTES

pytestmark = pytest.mark.integration

SIZE = 2 * PART_BYTES + 9
DATA = np.random.default_rng(2).bytes(SIZE)
_numbers = itertools.count()


@pytest.fixture
def place(fake_gcs, monkeypatch):
    return _at(fake_gcs, monkeypatch)


@pytest.fixture
def store(place):
    """With a client of its own: one remembers what a bucket lets it do."""
    return place.open(fresh_policy())


def fresh_policy():
    return dataclasses.replace(QUICK, wait_max_seconds=0.1 + next(_numbers) / 1e6)


def write(store, data=DATA, name="file"):
    with store.open_write(name) as sink:
        sink.write(data)


def requests(place, method, contains):
    return [target for seen, target in place.proxy.seen if seen == method and contains in target]


@pytest.mark.parametrize(("num_parts", "at_once"), [(2, 32), (32, 32), (33, 32), (28, 3)])
def test_however_many_parts_make_one_object_and_are_gone(place, store, monkeypatch, num_parts, at_once):
    """In as many steps as it takes: 33 parts of 32 that one request joins, 28 of 3."""
    monkeypatch.setattr(gcs_requests, "MOST_COMPOSED", at_once)
    parts = [bytes([number % 251]) * (number % 7 + 1) for number in range(num_parts)]
    base = place.uri.removeprefix("gs://")
    upload = gcs.connect(QUICK).upload(f"{base}/file")
    upload.begin()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(upload.send, range(num_parts), map(memoryview, parts)))
    upload.finish(num_parts)

    assert store.read("file") == b"".join(parts)
    assert [file.path for file in store.list("")] == ["file"]
    assert store.leftovers("") == []
    assert upload.mismatch(gcs.connect(QUICK).fs.info(f"{base}/file")) == ""
    assert "were sent" in upload.mismatch({"crc32c": "AAAAAA=="})


def test_two_who_write_the_same_path_do_not_mix(store):
    other = bytes(SIZE)
    with store.open_write("file") as first, store.open_write("file") as second:
        for start in range(0, SIZE, PART_BYTES // 2):
            first.write(memoryview(DATA)[start : start + PART_BYTES // 2])
            second.write(memoryview(other)[start : start + PART_BYTES // 2])
        assert store.list("") == []

    assert store.read("file") == DATA  # left last
    assert store.leftovers("") == []


def test_a_process_that_is_killed_leaves_parts_that_nobody_reads_and_gc_collects(place, store):
    program = f"""
import os, signal
from warpctl.storage.store import Store
store = Store.open({place.uri!r})
with store.open_write("stages/rl/k/file") as sink:
    sink.write(bytes({3 * PART_BYTES + 1}))
    while len(store.leftovers("")) < 2:
        pass
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False, timeout=120)
    assert killed.returncode == -9

    left = store.leftovers("")
    assert left
    assert all(file.path.startswith("stages/rl/k/.tmp-") for file in left)
    assert store.list("") == []
    assert store.read_or_none("stages/rl/k/file") is None

    now = datetime.now(UTC)
    assert plan_gc(store, now=now + timedelta(hours=23)).items == ()
    sweep(store, plan_gc(store, now=now + timedelta(hours=25)))
    assert store.leftovers("") == []


def test_who_may_not_delete_sends_one_part_after_the_other_and_leaves_no_parts(place, store):
    place.proxy.fail(Fault(status=403), method="DELETE", times=99)

    write(store)
    write(store, DATA[::-1], "next")

    assert (store.read("file"), store.read("next")) == (DATA, DATA[::-1])
    assert [file.size for file in store.leftovers("")] == [0]  # what was to be deleted to see whether one may
    assert len(requests(place, "DELETE", ".tmp-")) == 1
    begun = [target for target in requests(place, "POST", "uploadType=resumable") if "upload_id" not in target]
    assert len(begun) == 2


def test_who_may_not_delete_any_more_sends_no_parts_from_then_on(place, store):
    write(store)
    place.proxy.fail(Fault(status=403), method="DELETE", times=99)

    write(store, DATA[::-1], "next")
    sent = len(requests(place, "POST", "/.tmp-"))
    write(store, DATA, "last")

    assert len(requests(place, "POST", "/.tmp-")) == sent
    assert len([t for t in requests(place, "POST", "uploadType=resumable") if "upload_id" not in t]) == 1
    assert (store.read("next"), store.read("last")) == (DATA[::-1], DATA)


def test_that_a_bucket_lets_delete_is_asked_once(place, store):
    write(store)
    write(store, DATA[::-1], "next")

    assert len(requests(place, "POST", "/.tmp-")) == 1 + 2 * 3
    assert len(requests(place, "DELETE", ".tmp-")) == 1 + 2 * 3
    assert requests(place, "POST", "uploadType=resumable") == []


def test_who_may_not_create_hears_it_before_a_part_is_sent(place, store):
    place.proxy.fail(Fault(status=403), method="POST", times=99)

    with pytest.raises(StoreDeniedError, match=r"cannot write gs://.*/file as anonymous: OSError: Forbidden"):
        write(store)

    assert len(place.proxy.seen) == 1


def test_a_refusal_to_compose_is_final_and_leaves_nothing(place, store):
    place.proxy.fail(Fault(status=403), contains="/compose", times=99)

    with pytest.raises(StoreDeniedError, match=r"cannot write gs://.*/file as anonymous: OSError: Forbidden"):
        write(store)

    assert store.list("") == store.leftovers("") == []


def test_an_object_that_cannot_be_composed_does_not_appear(place, store):
    place.proxy.fail(Fault(status=503), contains="/compose", times=99)

    with pytest.raises(StoreUnavailableError, match="cannot write"):
        write(store)

    assert store.list("") == store.leftovers("") == []


def test_parts_that_cannot_be_deleted_do_not_make_a_file_fail(place, store):
    write(store)
    place.proxy.fail(Fault(status=503), method="DELETE", times=999)

    write(store, DATA[::-1], "next")

    assert store.read("next") == DATA[::-1]
    assert [file.path for file in store.list("")] == ["file", "next"]
    assert sorted(file.size for file in store.leftovers("")) == [9, PART_BYTES, PART_BYTES]
    place.proxy.clear()
    sweep(store, plan_gc(store, now=datetime.now(UTC) + timedelta(days=2)))
    assert store.leftovers("") == []


def test_a_part_that_was_exchanged_is_noticed(place, store):
    """By the CRC32C of the whole, which follows from those of the parts as they were sent."""
    with pytest.raises(StoreUnavailableError, match="with crc32c"), store.open_write("file") as sink:
        sink.write(DATA)
        while not (parts := [file.path for file in store.leftovers("") if file.path.endswith("-00000")]):
            pass
        store.write(parts[0], bytes(PART_BYTES))

    assert store.list("") == store.leftovers("") == []
