"""Manifests: their bytes are frozen, their digests follow from them alone."""

import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpctl.errors import CorruptError, InputError, NumericsError
from warpctl.storage.chunk_hasher import CHUNK_BYTES, ChunkHasher
from warpctl.storage.manifest import FileEntry, Manifest, Parent, canonical_json, content_digest, digest_of

HELLO = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"  # b3sum of "hello"


def _manifest(**changes):
    fields = {
        "kind": "import",
        "key": "0123",
        "attempt_id": "attempt-1",
        "stage_id": "import-sft",
        "files": (FileEntry(name="config.json", path="stages/import/0123/x", size=5, chunks=(HELLO,)),),
        "parents": (Parent(role="sft", kind="import", key="00", manifest_digest="ff"),),
        "content_digest": "cc",
        "versions": {"python": "3.11.7"},
        "started_at": "2026-01-02T03:04:05.678Z",
        "ended_at": "2026-01-02T03:05:05.678Z",
        "gpu_seconds": 1.5,
        "outcome": {"reward": 0.1, "name": "\u00fc"},
    }
    return Manifest(**(fields | changes))


GOLDEN = (
    '{"attemptId":"attempt-1","chunkBytes":16777216,"contentDigest":"cc","endedAt":"2026-01-02T03:05:05.678Z",'
    f'"files":[{{"chunks":["{HELLO}"],"name":"config.json","path":"stages/import/0123/x","size":5}}],'
    '"gpuSeconds":1.5,"key":"0123","kind":"import","layoutVersion":1,"outcome":{"name":"\u00fc","reward":0.1},'
    '"parents":[{"contentDigest":"","key":"00","kind":"import","manifestDigest":"ff","role":"sft"}],'
    '"stageId":"import-sft","startedAt":"2026-01-02T03:04:05.678Z","versions":{"python":"3.11.7"}}'
)


def test_the_bytes_of_a_manifest_never_change():
    assert _manifest().to_bytes() == GOLDEN.encode()


def test_the_digest_of_a_manifest_never_changes():
    assert _manifest().digest == digest_of(GOLDEN.encode())
    assert digest_of(b"hello") == HELLO
    assert CHUNK_BYTES == 16 * 2**20


def test_a_manifest_comes_back_from_its_bytes():
    assert Manifest.from_bytes(GOLDEN.encode()) == _manifest()
    assert Manifest.from_bytes(GOLDEN.encode()).to_bytes() == GOLDEN.encode()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", GOLDEN.encode()[:-20], b"\xff\xfe"])
def test_anything_else_is_corrupt_and_the_source_is_named(data):
    with pytest.raises(CorruptError, match="gs://b/committed"):
        Manifest.from_bytes(data, source="gs://b/committed.json")


def test_an_unknown_field_is_corrupt():
    with pytest.raises(CorruptError, match="surprise"):
        Manifest.from_bytes(json.dumps(json.loads(GOLDEN) | {"surprise": 1}).encode())


def test_a_newer_layout_is_refused_with_the_way_out():
    with pytest.raises(InputError, match="has layout version 2, this warpctl reads 1") as caught:
        Manifest.from_bytes(GOLDEN.replace('"layoutVersion":1', '"layoutVersion":2').encode())

    assert "the warpctl that wrote this store" in caught.value.hint


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_json_does_not_have_are_refused(number):
    with pytest.raises(NumericsError, match="import-sft: its outcome holds a number that is not finite"):
        _manifest(outcome={"kl": number}).to_bytes()


ENTRIES = st.lists(
    st.builds(
        FileEntry,
        name=st.text(min_size=1, max_size=8),
        path=st.text(max_size=8),
        size=st.integers(0, 2**40),
        chunks=st.lists(st.sampled_from([HELLO, "00" * 32]), max_size=3).map(tuple),
    ),
    max_size=5,
    unique_by=lambda entry: entry.name,
)


@given(ENTRIES, st.randoms(use_true_random=False), st.text(max_size=5))
def test_equal_content_has_an_equal_digest_whatever_the_order_and_the_paths(entries, random, path):
    moved = [entry.model_copy(update={"path": path}) for entry in entries]
    random.shuffle(moved)

    assert content_digest(moved) == content_digest(entries)


@given(ENTRIES.filter(bool), st.sampled_from(["name", "size", "chunks"]))
def test_another_name_size_or_chunk_has_another_digest(entries, field):
    first = entries[0]
    change = {"name": first.name + "x", "size": first.size + 1, "chunks": (*first.chunks, HELLO)}[field]

    assert content_digest([first.model_copy(update={field: change}), *entries[1:]]) != content_digest(entries)


def test_the_content_digest_of_one_file_never_changes():
    entry = FileEntry(name="config.json", path="anywhere", size=5, chunks=(HELLO,))

    assert content_digest([entry]) == digest_of(f'[["config.json",5,["{HELLO}"]]]'.encode())


def test_canonical_json_sorts_keys_and_keeps_text():
    assert canonical_json({"b": 1, "a": [1.0, None, "\u00fc"]}) == '{"a":[1.0,null,"\u00fc"],"b":1}'.encode()


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_chunk_digests_do_not_depend_on_how_the_bytes_arrive(data, cuts):
    hasher = ChunkHasher(chunk_bytes=16)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        hasher.update(data[start:end])

    assert hasher.finish() == tuple(digest_of(data[start : start + 16]) for start in range(0, len(data), 16))
    assert hasher.size == len(data)


def test_wide_elements_are_hashed_as_bytes():
    hasher = ChunkHasher()
    hasher.update(memoryview(b"hellohello"[:8]).cast("I"))

    assert (hasher.size, hasher.finish()) == (8, (digest_of(b"hellohel"),))
