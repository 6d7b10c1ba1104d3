"""Uploads in parts: order, bounds and errors, on a service that a test holds in its hands."""

import threading

import google_crc32c
import pytest

from warpctl.storage.crc32c import crc32c, joined_crc32c
from warpctl.storage.s3 import is_md5
from warpctl.storage.uploads import PartBuffers, PartSink


class Service:
    """An upload whose parts wait for `go`."""

    def __init__(self, parallel, fails_at=None):
        self.parallel = parallel
        self.go = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.fails_at = fails_at
        self.parts = {}
        self.calls = []

    def begin(self):
        self.calls.append("begin")
        return self.parallel

    def put(self, data):
        self.calls.append("put")
        self.parts[0] = bytes(data)

    def send(self, number, part):
        self.began.release()
        assert self.go.acquire(timeout=30)
        if number == self.fails_at:
            raise ConnectionError(f"part {number}")
        self.parts[number] = bytes(part)

    def finish(self, num_parts):
        self.calls.append(f"finish {num_parts}")

    def abort(self):
        self.calls.append("abort")

    def stored(self):
        return b"".join(self.parts[number] for number in sorted(self.parts))


def open_doors(service, times=100):
    for _ in range(times):
        service.go.release()


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("piece", [1, 3, 4, 5, 11])
@pytest.mark.parametrize("size", [0, 1, 4, 5, 8, 23])
def test_parts_make_the_bytes_that_were_written(parallel, piece, size):
    data = bytes(range(size))
    service = Service(parallel)
    open_doors(service)
    sink = PartSink(service, buffers=PartBuffers(4))
    for start in range(0, size, piece):
        sink.write(data[start : start + piece])
    sink.close()

    assert service.stored() == data
    assert sink.size == size
    assert service.calls == (["put"] if size <= 4 else ["begin", f"finish {-(-size // 4)}"])
    assert all(len(part) == 4 for number, part in service.parts.items() if number != max(service.parts))


@pytest.mark.parametrize("parallel", [1, 3])
def test_the_producer_fills_one_part_more_than_are_on_their_way_and_then_waits(parallel):
    service = Service(parallel)
    sink = PartSink(service, buffers=PartBuffers(4))
    sink.write(bytes(4 * (parallel + 1)))
    for _ in range(parallel):
        assert service.began.acquire(timeout=30)
    is_through = threading.Event()
    producer = threading.Thread(target=lambda: (sink.write(b"x"), is_through.set()))
    producer.start()

    assert not is_through.wait(0.2)

    service.go.release()
    assert is_through.wait(30)
    producer.join()
    open_doors(service)
    sink.close()
    assert service.stored() == bytes(4 * (parallel + 1)) + b"x"


def test_an_error_of_a_part_reaches_the_producer_and_nothing_is_finished():
    service = Service(1, fails_at=1)
    open_doors(service)
    sink = PartSink(service, buffers=PartBuffers(4))
    with pytest.raises(ConnectionError, match="part 1"):
        for _ in range(100):
            sink.write(b"abcd")
    sink.abort()

    assert service.calls == ["begin", "abort"]


def test_an_error_of_the_last_part_reaches_the_one_who_closes():
    service = Service(2, fails_at=2)
    open_doors(service)
    sink = PartSink(service, buffers=PartBuffers(4))
    sink.write(b"abcdefghi")

    with pytest.raises(ConnectionError, match="part 2"):
        sink.close()

    assert service.calls == ["begin"]


def test_aborting_waits_for_the_part_on_its_way_and_sends_no_other():
    service = Service(1)
    sink = PartSink(service, buffers=PartBuffers(4))
    sink.write(b"abcdefgh")
    assert service.began.acquire(timeout=30)
    aborting = threading.Thread(target=sink.abort)
    aborting.start()
    aborting.join(0.2)

    assert service.calls == ["begin"]
    service.go.release()
    aborting.join(30)
    assert (service.calls, service.stored()) == (["begin", "abort"], b"abcd")


def test_crc32c_of_pieces_is_that_of_the_whole():
    data = bytes(range(256)) * 5000

    assert crc32c(memoryview(data)) == google_crc32c.value(data)
    assert crc32c(memoryview(data)[7:], crc32c(memoryview(data)[:7])) == google_crc32c.value(data)
    assert crc32c(memoryview(b"123456789")) == 0xE3069283  # RFC 3720's check value


@pytest.mark.parametrize("size", [0, 1, 7, 5000, 2**20 + 3])
def test_crc32c_of_a_whole_follows_from_those_of_its_parts(size):
    data = bytes(range(251)) * 5000
    before, after = memoryview(data)[:1000], memoryview(data)[1000 : 1000 + size]

    joined = joined_crc32c(crc32c(before), crc32c(after), size)

    assert joined == google_crc32c.value(data[: 1000 + size])
    assert joined_crc32c(0, joined, 1000 + size) == joined  # nothing before it


class Counted(PartBuffers):
    """Buffers whose number is remembered."""

    def __init__(self, part_bytes, **kwargs):
        super().__init__(part_bytes, **kwargs)
        self.most = 0

    def take(self):
        buffer = super().take()
        self.most = max(self.most, self._num_buffers)
        return buffer


def test_files_that_are_written_together_share_what_is_on_its_way_and_all_of_them_go_on():
    buffers = Counted(4, most_at_once=2)
    services = [Service(4) for _ in range(3)]
    data = bytes(range(256))

    def write(service):
        sink = PartSink(service, buffers=buffers)
        for start in range(0, len(data), 7):
            sink.write(data[start : start + 7])
        sink.close()

    threads = [threading.Thread(target=write, args=(service,)) for service in services]
    for thread in threads:
        thread.start()
    for _ in range(2):
        assert any(service.began.acquire(timeout=10) for service in services)
    for service in services:
        open_doors(service)
    for thread in threads:
        thread.join(30)

    assert [service.stored() for service in services] == [data] * 3
    assert buffers.most <= 3 + 2
    assert (buffers._num_buffers, buffers._free) == (0, [])


@pytest.mark.parametrize("size", [3, 4, 5])
def test_when_nobody_writes_nothing_is_kept(size):
    buffers, service = PartBuffers(4), Service(2)
    open_doors(service)
    sink = PartSink(service, buffers=buffers)
    sink.write(bytes(size))
    sink.close()

    assert (buffers._num_buffers, buffers._free) == (0, [])


def test_a_file_that_is_given_up_gives_its_memory_to_the_others():
    buffers = PartBuffers(4, most_at_once=1)
    service, other = Service(4, fails_at=0), Service(4)
    open_doors(service)
    open_doors(other)
    sink, second = PartSink(service, buffers=buffers), PartSink(other, buffers=buffers)
    with pytest.raises(ConnectionError):
        for _ in range(100):
            sink.write(b"abcd")
    sink.abort()
    for _ in range(10):
        second.write(b"efgh")
    second.close()

    assert other.stored() == b"efgh" * 10


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"ETag": '"9e107d9d372bb6826bd81d3542a419d6"'}, True),
        ({"ETag": '"9e107d9d372bb6826bd81d3542a419d6"', "ServerSideEncryption": "AES256"}, True),
        ({"ETag": '"9e107d9d372bb6826bd81d3542a419d6"', "ServerSideEncryption": "aws:kms"}, False),
        ({"ETag": '"9e107d9d372bb6826bd81d3542a419d6"', "SSECustomerAlgorithm": "AES256"}, False),
        ({"ETag": '"9e107d9d372bb6826bd81d3542a419d6-3"'}, False),
    ],
)
def test_an_etag_is_an_md5_unless_keys_or_parts_went_into_it(answer, expected):
    assert is_md5(answer) is expected


@pytest.mark.timeout(60)
def test_who_writes_on_after_an_error_hears_it_again():
    service = Service(1, fails_at=0)
    open_doors(service)
    sink = PartSink(service, buffers=PartBuffers(4))
    for _ in range(3):
        with pytest.raises(ConnectionError, match="part 0"):
            sink.write(bytes(12))
    sink.abort()
