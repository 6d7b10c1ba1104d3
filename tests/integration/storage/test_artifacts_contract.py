"""Publishing and reading artifacts on every backend: damage is seen, zombies are harmless, collection spares what runs."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from warpctl import artifacts
from warpctl.errors import CorruptError, InputError
from warpctl.spec.stage_input import StageKind
from warpctl.storage.artifact import Artifact
from warpctl.storage.chunk_hasher import CHUNK_BYTES
from warpctl.storage.gc import plan_gc, sweep
from warpctl.storage.wanted import Wanted, WantedStage, write_wanted

pytestmark = pytest.mark.integration

KIND, KEY = "import", "k" * 64


@pytest.fixture
def published(store, attempt):
    """An artifact of one small file and one of two chunks."""
    publication = attempt(store, "attempt-1")
    publication.write_file("config.json", b'{"model_type": "gemma"}')
    with publication.open_file("model.safetensors") as file:
        for _ in range(17):
            file.write(bytes(range(256)) * 4096)
    return publication.commit()


def _path(manifest, name):
    return next(file.path for file in manifest.files if file.name == name)


def test_what_was_published_is_read_back_verified(store, published, tmp_path):
    artifact = Artifact.load(store, KIND, KEY, digest=published.digest)

    assert artifact.names() == ("config.json", "model.safetensors")
    assert artifact.read("config.json") == b'{"model_type": "gemma"}'
    assert artifact.read_range("model.safetensors", CHUNK_BYTES - 2, CHUNK_BYTES + 2) == b"\xfe\xff\x00\x01"
    folder = artifact.download(tmp_path / "model")
    assert (folder / "config.json").read_bytes() == b'{"model_type": "gemma"}'
    assert (folder / "model.safetensors").stat().st_size == 17 * 2**20


def test_files_of_several_parts_are_written_side_by_side(store, attempt):
    publication = attempt(store, "attempt-1")
    together = threading.Barrier(3, timeout=60)
    pieces = [bytes([number]) * (2**20 + number) for number in range(3)]

    def write(number):
        with publication.open_file(f"model-{number}.safetensors") as file:
            together.wait()
            for _ in range(18):
                file.write(pieces[number])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    artifact = Artifact.load(store, KIND, KEY, digest=publication.commit().digest)

    assert [artifact.read(name) == pieces[number] * 18 for number, name in enumerate(artifact.names())] == [True] * 3


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: data[: CHUNK_BYTES + 5], "5 bytes are left of 1048576"),
        (lambda data: data[:CHUNK_BYTES], "0 bytes are left of 1048576"),
        (lambda data: data[: CHUNK_BYTES + 5] + b"X" + data[CHUNK_BYTES + 6 :], "its bytes were altered"),
        (None, "the object is gone"),
    ],
    ids=["truncated", "cut at the chunk", "altered", "deleted"],
)
def test_damage_is_seen_and_named_on_every_way_of_reading(store, published, damage, why, tmp_path):
    path = _path(published, "model.safetensors")
    if damage is None:
        store.delete(path)
    else:
        store.write(path, damage(store.read(path)))

    chunk = 0 if damage is None else 1
    for read in (
        lambda artifact: artifact.read("model.safetensors"),
        lambda artifact: artifact.read_range("model.safetensors", 17 * 2**20 - 1, 17 * 2**20),
        lambda artifact: artifact.download(tmp_path / "model"),
    ):
        with pytest.raises(CorruptError, match=f"model.safetensors.*chunk [{chunk}1] of 2: {why}") as caught:
            read(Artifact.load(store, KIND, KEY))
        assert store.uri(path) in str(caught.value)
        assert store.uri(artifacts.stage(KIND, KEY)) in caught.value.hint
    if damage is not None:
        assert Artifact.load(store, KIND, KEY).read_range("model.safetensors", 0, 4) == b"\x00\x01\x02\x03"


def test_without_a_marker_there_is_no_artifact(store, published):
    store.delete(artifacts.marker(KIND, KEY))

    with pytest.raises(InputError, match=r"no artifact at .*committed\.json"):
        Artifact.load(store, KIND, KEY)


def test_a_marker_other_than_the_pinned_one_is_refused(store, published):
    store.write(artifacts.marker(KIND, KEY), published.to_bytes().replace(b"attempt-1", b"attempt-2"))

    with pytest.raises(InputError, match=f"the stage was planned for {published.digest}"):
        Artifact.load(store, KIND, KEY, digest=published.digest)


def test_half_a_marker_is_no_manifest(store, published):
    store.write(artifacts.marker(KIND, KEY), published.to_bytes()[:100])

    with pytest.raises(CorruptError, match="is not a manifest"):
        Artifact.load(store, KIND, KEY)


def test_a_zombie_attempt_that_writes_late_changes_nothing(store, attempt):
    zombie = attempt(store, "attempt-1")
    with zombie.open_file("weights") as file:
        file.write(b"zombie's first half, ")
        winner = attempt(store, "attempt-2")
        winner.write_file("weights", b"winner's")
        won = winner.commit()
        file.write(b"zombie's second half")
    zombie.write_file("extra", b"x")
    seen_by_zombie = zombie.commit()

    assert seen_by_zombie == won
    artifact = Artifact.load(store, KIND, KEY, digest=won.digest)
    assert artifact.names() == ("weights",)
    assert artifact.read("weights") == b"winner's"


def test_the_next_attempt_takes_over_the_finished_files_of_one_that_died(store, attempt):
    died = attempt(store, "attempt-1")
    with died.open_file("shard-1") as file:
        file.write(b"one")
    with pytest.raises(KeyboardInterrupt), died.open_file("shard-2") as file:
        file.write(b"tw")
        raise KeyboardInterrupt

    following = attempt(store, "attempt-2")
    receipts = following.receipts()
    following.adopt(receipts["shard-1"])
    following.write_file("shard-2", b"two")
    following.commit()

    assert list(receipts) == ["shard-1"]
    artifact = Artifact.load(store, KIND, KEY)
    assert artifact.read("shard-1") + artifact.read("shard-2") == b"onetwo"
    assert artifact.entry("shard-1").path.startswith(artifacts.attempt(KIND, KEY, "attempt-1"))


def test_a_receipt_without_its_file_is_not_offered(store, attempt):
    publication = attempt(store, "attempt-1")
    with publication.open_file("a") as file:
        file.write(b"one")
    with publication.open_file("b") as file:
        file.write(b"two")
    store.delete(publication.path("a"))
    store.write(publication.path("b"), b"tw")

    assert attempt(store, "attempt-2").receipts() == {}


def test_many_attempts_that_commit_at_once_agree_on_one_manifest(store, attempt):
    start = threading.Barrier(6)
    manifests = []

    def run(n):
        publication = attempt(store, f"attempt-{n}")
        publication.write_file("weights", f"weights of {n}".encode())
        start.wait()
        manifests.append(publication.commit())

    threads = [threading.Thread(target=run, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(manifests) == 6
    assert len({manifest.digest for manifest in manifests}) == 1
    winner = manifests[0].attempt_id.removeprefix("attempt-")
    assert Artifact.load(store, KIND, KEY).read("weights") == f"weights of {winner}".encode()


def test_collection_beside_a_running_run_spares_all_that_it_wants(store, attempt):
    """A run publishes stage after stage, resume states and losing attempts included, while gc sweeps without an age floor."""
    keys = [f"{n:064d}" for n in range(6)]
    old = attempt(store, "attempt-1", key="0ld" * 20)
    old.write_file("weights", b"old")
    old.commit()
    stages = tuple(WantedStage(kind=StageKind.IMPORT, key=key) for key in keys)
    write_wanted(store, Wanted(namespace="default", name="demo", stages=stages, written_at="now"))
    done = threading.Event()
    swept = []

    def collect():
        while True:
            was_done = done.is_set()
            now = datetime.now(UTC) + timedelta(seconds=5)
            swept.append(sweep(store, plan_gc(store, now=now, min_age=timedelta(0))))
            if was_done:
                return

    collector = threading.Thread(target=collect)
    collector.start()
    for key in keys:
        loser, winner = attempt(store, "attempt-1", key=key), attempt(store, "attempt-2", key=key)
        store.write(f"{artifacts.resume(KIND, key, 'attempt-2', 3)}/state", b"state")
        with loser.open_file("shard-1") as file:
            file.write(key.encode())
        assert store.read(f"{artifacts.resume(KIND, key, 'attempt-2', 3)}/state") == b"state"
        winner.adopt(winner.receipts()["shard-1"])
        winner.write_file("shard-2", b"two")
        winner.commit()
    done.set()
    collector.join()

    for key in keys:
        artifact = Artifact.load(store, KIND, key)
        assert artifact.read("shard-1") == key.encode()
        assert artifact.read("shard-2") == b"two"
        assert store.list(artifacts.resume(KIND, key, "attempt-2", 3)) == []
    assert store.list(artifacts.stage(KIND, "0ld" * 20)) == []
    assert sum(one.num_files for one in swept) >= 2 + len(keys)
