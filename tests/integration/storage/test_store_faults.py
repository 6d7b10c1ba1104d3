"""Stores whose network breaks: what is transient is tried again, what is final is not, and a lost answer is no defeat."""

import dataclasses

import pytest

from tests.integration.storage.conftest import QUICK
from tests.servers.fault_proxy import Fault
from warpctl.errors import StoreDeniedError, StoreUnavailableError

pytestmark = pytest.mark.integration

UPLOAD = {"gs": "POST", "s3": "PUT"}
TRANSIENT = [
    Fault(status=503),
    Fault(status=429),
    Fault(status=500),
    Fault(reset=True),
    Fault(lose_response=True),
    Fault(cut_response=True),
    Fault(cut_request=True),
]


def _name(fault):
    return next(f"{key}={value}" for key, value in dataclasses.asdict(fault).items() if value)


@pytest.mark.parametrize("fault", TRANSIENT, ids=_name)
def test_every_operation_survives_two_transient_faults(cloud, cloud_store, fault):
    operations = {
        "write": lambda: cloud_store.write("a", b"payload"),
        "read": lambda: cloud_store.read("a"),
        "read_range": lambda: cloud_store.read_range("a", 1, 4),
        "stat": lambda: cloud_store.stat("a").size,
        "list": lambda: [file.path for file in cloud_store.list("")],
        "delete": lambda: cloud_store.delete("a"),
    }
    results = {}
    for name, operation in operations.items():
        cloud.proxy.fail(fault, times=2)
        results[name] = operation()
        cloud.proxy.orders.clear()

    assert results["read"] == b"payload"
    assert results["read_range"] == b"ayl"
    assert results["stat"] == 7
    assert results["list"] == ["a"]
    assert cloud_store.read_or_none("a") is None


@pytest.mark.parametrize("fault", TRANSIENT, ids=_name)
def test_a_creator_whose_answer_was_lost_has_won(cloud, cloud_store, fault):
    cloud.proxy.fail(fault, method=UPLOAD[cloud.uri[:2]], times=2)

    assert cloud_store.create_once("marker", b"attempt 1") is True
    assert cloud_store.create_once("marker", b"attempt 2") is False
    assert cloud_store.read("marker") == b"attempt 1"


def test_a_lost_answer_makes_the_server_refuse_the_second_request(cloud, cloud_store):
    """Otherwise the test above would prove nothing: the object is stored, the repeated request meets it and gets 412."""
    cloud.proxy.fail(Fault(lose_response=True), method=UPLOAD[cloud.uri[:2]])

    assert cloud_store.create_once("marker", b"attempt 1") is True

    uploads = [target for method, target in cloud.proxy.seen if method == UPLOAD[cloud.uri[:2]]]
    reads = [target for method, target in cloud.proxy.seen if method == "GET"]
    assert len(uploads) == 2
    assert len(reads) == 1


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(reset=True), Fault(cut_request=True)], ids=_name)
def test_a_streamed_upload_survives_faults_in_each_of_its_requests(cloud, cloud_store, fault):
    block = bytes(range(256)) * 4096
    cloud.proxy.fail(fault, method="POST")
    with cloud_store.open_write("big") as file:
        for n in range(36):
            if n in (0, 31, 35):
                cloud.proxy.fail(fault)
            file.write(block)

    assert cloud_store.stat("big").size == 36 * len(block)
    assert cloud_store.read_range("big", 32 * 2**20 - 2, 32 * 2**20 + 2) == b"\xfe\xff\x00\x01"


STEPS = {"gs": (".tmp-", "-0000", "/compose"), "s3": ("?uploads", "uploadId", "uploadId")}


@pytest.mark.parametrize("step", [0, 1, 2], ids=["start", "a part", "end"])
def test_an_upload_that_loses_an_answer_has_each_part_once(cloud, cloud_store, step):
    block = bytes(range(256)) * 4096
    with cloud_store.open_write("big") as file:
        for n in range(36):
            if (step, n) in ((0, 0), (1, 31), (2, 35)):
                cloud.proxy.fail(Fault(lose_response=True), contains=STEPS[cloud.uri[:2]][step])
            file.write(block)

    assert cloud_store.read("big") == block * 36
    assert cloud_store.leftovers("") == []
    assert cloud.proxy.orders[0].times == 0


def test_an_upload_that_is_cut_every_time_leaves_nothing(cloud, cloud_store):
    cloud.proxy.fail(Fault(cut_request=True), method=UPLOAD[cloud.uri[:2]], times=99)

    with pytest.raises(StoreUnavailableError):
        cloud_store.write("partial", bytes(100_000))
    with pytest.raises(StoreUnavailableError), cloud_store.open_write("stream") as file:
        file.write(bytes(100_000))

    cloud.proxy.clear()
    assert cloud_store.list("") == []


def test_a_store_that_stays_down_is_asked_as_often_as_the_policy_says(cloud, cloud_store):
    cloud_store.write("a", b"x")
    cloud.proxy.clear()
    cloud.proxy.fail(Fault(status=503), times=99)

    with pytest.raises(StoreUnavailableError, match="cannot read") as caught:
        cloud_store.read("a")

    assert cloud_store.uri("a") in str(caught.value)
    assert "run the same command again" in caught.value.hint
    assert len({target for _, target in cloud.proxy.seen}) == 1
    assert len(cloud.proxy.seen) == QUICK.attempts


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_final_at_once_and_names_identity_and_uri(cloud, cloud_store, status):
    cloud_store.write("a", b"x")
    cloud.proxy.clear()
    cloud.proxy.fail(Fault(status=status), times=99)

    with pytest.raises(StoreDeniedError) as caught:
        cloud_store.write("a", b"y")

    assert cloud_store.uri("a") in str(caught.value)
    assert {"gs": "as anonymous", "s3": "as access key testing"}[cloud.uri[:2]] in str(caught.value)
    assert len(cloud.proxy.seen) == 1


def test_a_slow_answer_is_waited_for_and_silence_is_not(cloud):
    patient, hasty = cloud.open(), cloud.open(dataclasses.replace(QUICK, read_timeout_seconds=0.5))
    patient.write("a", b"x")
    cloud.proxy.fail(Fault(delay_seconds=1.5))

    assert patient.read("a") == b"x"

    cloud.proxy.clear()
    cloud.proxy.fail(Fault(delay_seconds=3), method="GET")

    assert hasty.read("a") == b"x"
    assert len([method for method, _ in cloud.proxy.seen if method == "GET"]) >= 2


def test_a_dead_server_is_unavailable(cloud, monkeypatch):
    for name in ("STORAGE_EMULATOR_HOST", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: nobody listens

    with pytest.raises(StoreUnavailableError, match="cannot write"):
        cloud.open().write("a", b"x")
