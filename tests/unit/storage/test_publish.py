"""A publication: files under its attempt, receipts, one marker."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from warpctl import artifacts
from warpctl.errors import InputError
from warpctl.spec.stage_input import InputArtifact, StageKind
from warpctl.storage.artifact import Artifact
from warpctl.storage.manifest import FileEntry, content_digest, digest_of


def test_nothing_is_published_before_the_commit(memory, publication):
    publication(memory).write_file("config.json", b"{}")

    with pytest.raises(InputError, match="no artifact"):
        Artifact.load(memory, "import", "k1")


def test_the_manifest_says_who_what_when_and_from_what(memory, publication):
    sft = InputArtifact(role="sft", kind=StageKind.IMPORT, key="k0", manifest_digest="d0", content_digest="c0")
    made = publication(memory, inputs=(sft,))
    made.write_file("b", b"hello")
    with made.open_file("a") as file:
        assert file.write(b"hel") == 3
        file.write(memoryview(b"lo"))
    manifest = made.commit(outcome={"reward": 0.5}, gpu_seconds=2.0)

    assert (manifest.kind, manifest.key, manifest.attempt_id, manifest.stage_id) == ("import", "k1", "a1", "import-sft")
    assert [(file.name, file.path, file.size, file.chunks) for file in manifest.files] == [
        ("a", "stages/import/k1/attempts/a1/files/a", 5, (digest_of(b"hello"),)),
        ("b", "stages/import/k1/attempts/a1/files/b", 5, (digest_of(b"hello"),)),
    ]
    assert [parent.model_dump() for parent in manifest.parents] == [
        {"role": "sft", "kind": "import", "key": "k0", "manifest_digest": "d0", "content_digest": "c0"}
    ]
    assert manifest.content_digest == content_digest(manifest.files)
    assert (manifest.started_at, manifest.ended_at) == ("2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678Z")
    assert (manifest.outcome, manifest.gpu_seconds) == ({"reward": 0.5}, 2.0)
    assert "python" in manifest.versions
    assert memory.read(artifacts.marker("import", "k1")) == manifest.to_bytes()


def test_two_attempts_with_the_same_bytes_have_one_content_digest_and_two_manifest_digests(memory, publication):
    manifests = []
    for number in ("1", "2"):
        made = publication(memory, f"a{number}", key=f"k{number}")
        made.write_file("weights", b"same")
        manifests.append(made.commit())

    assert manifests[0].content_digest == manifests[1].content_digest
    assert manifests[0].digest != manifests[1].digest


def test_files_may_be_written_side_by_side_and_each_is_the_one_that_it_is(memory, publication):
    made = publication(memory)
    together = threading.Barrier(4, timeout=60)

    def write(number):
        with made.open_file(f"shard-{number}") as file:
            for piece in range(50):
                file.write(bytes([number, piece]))
                if piece in {0, 49}:
                    together.wait()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    manifest = made.commit()

    expected = [bytes(byte for piece in range(50) for byte in (number, piece)) for number in range(4)]
    assert [file.name for file in manifest.files] == [f"shard-{number}" for number in range(4)]
    assert [memory.read(file.path) for file in manifest.files] == expected
    assert [file.chunks for file in manifest.files] == [(digest_of(data),) for data in expected]
    assert [made.receipts()[file.name] for file in manifest.files] == list(manifest.files)


def test_a_file_that_is_being_written_is_nobody_elses(memory, publication):
    made = publication(memory)
    with made.open_file("a") as file:
        file.write(b"first")
        with pytest.raises(ValueError, match="a is in this publication already"):
            made.write_file("a", b"second")

    assert memory.read(made.commit().files[0].path) == b"first"


def test_a_file_that_failed_may_be_written_again(memory, publication):
    made = publication(memory)
    with pytest.raises(RuntimeError), made.open_file("a"):
        raise RuntimeError

    made.write_file("a", b"again")

    assert memory.read(made.commit().files[0].path) == b"again"


def test_committing_again_gives_the_manifest_that_won(memory, publication):
    first, second = publication(memory, "a1"), publication(memory, "a2")
    second.write_file("x", b"2")

    won = first.commit()

    assert second.commit() == won
    assert first.commit() == won


@pytest.mark.parametrize("again", ["write_file", "open_file", "adopt", "copy_file"])
def test_a_file_is_written_once(memory, publication, again):
    made = publication(memory)
    entry = made.write_file("a", b"1")
    memory.write("elsewhere", b"2")

    with pytest.raises(ValueError, match="a is in this publication already"):
        if again == "open_file":
            with made.open_file("a"):
                pass
        elif again == "adopt":
            made.adopt(entry)
        else:
            getattr(made, again)("a", b"2" if again == "write_file" else memory.uri("elsewhere"))


def test_a_stream_that_fails_leaves_neither_entry_nor_receipt(memory, publication):
    made = publication(memory)
    with pytest.raises(RuntimeError), made.open_file("a") as file:
        file.write(b"1")
        raise RuntimeError

    assert made.receipts() == {}
    assert made.commit().files == ()


def test_a_copy_is_hashed_where_it_came_to_lie(disk, publication, tmp_path):
    (tmp_path / "source").write_bytes(b"hello")
    made = publication(disk)

    entry = made.copy_file("weights", str(tmp_path / "source"))

    assert entry == FileEntry(name="weights", path=made.path("weights"), size=5, chunks=(digest_of(b"hello"),))
    assert made.receipts() == {"weights": entry}
    assert disk.local_path(entry.path).stat().st_ino == (tmp_path / "source").stat().st_ino
    assert made.commit().files == (entry,)


def test_a_link_is_followed_to_the_file_behind_it(disk, publication, tmp_path):
    (tmp_path / "blob").write_bytes(b"hello")
    (tmp_path / "link").symlink_to(tmp_path / "blob")
    made = publication(disk)

    entry = made.copy_file("weights", f"file://{tmp_path}/link")
    (tmp_path / "link").unlink()

    assert disk.read(entry.path) == b"hello"
    assert not disk.local_path(entry.path).is_symlink()


def test_a_copy_that_the_store_cannot_make_is_left_to_the_caller(disk, publication):
    assert publication(disk).copy_file("weights", "gs://elsewhere/weights") is None


def test_a_missing_source_is_an_input_error_that_names_it(disk, publication, tmp_path):
    with pytest.raises(InputError, match=f"there is no file {tmp_path}/absent"):
        publication(disk).copy_file("weights", f"{tmp_path}/absent")


def test_receipts_of_all_attempts_are_offered_and_unreadable_ones_passed_over(memory, publication):
    for attempt_id, name in (("a1", "x/one"), ("a2", "two")):
        with publication(memory, attempt_id).open_file(name) as file:
            file.write(name.encode())
    memory.write(artifacts.receipt("import", "k1", "a3", "three"), b"{")
    with publication(memory, "a1", key="another").open_file("four") as file:
        file.write(b"4")

    receipts = publication(memory, "a4").receipts()

    assert {name: entry.path for name, entry in receipts.items()} == {
        "x/one": "stages/import/k1/attempts/a1/files/x/one",
        "two": "stages/import/k1/attempts/a2/files/two",
    }
