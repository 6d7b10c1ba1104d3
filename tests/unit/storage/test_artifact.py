"""Reading an artifact: ranges, verification and the names of things."""

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
    reads = []
    original = type(memory).read_range
    monkeypatch.setattr(
        type(memory), "read_range", lambda self, *where: (reads.append(where), original(self, *where))[1]
    )

    for start in range(16):
        artifact.read_range("weights", start, start + 1)

    assert [start for _, start, _ in reads] == [0, 4, 8, 12]


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
