"""How files get into the store: streamed, retried, adopted from earlier attempts, and never from a source that changed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from tests.builders.import_stage import context_of, import_stage, is_committed
from warpctl.errors import CorruptError, Interrupted, RetryableError
from warpctl.spec.stage_input import StageInput
from warpctl.workers.imports.copying import Copier
from warpctl.workers.sources.base import (
    ATTEMPTS,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    SourceChangedError,
    SourceFile,
    read_start,
    retrying,
    stream_all,
)

_names = itertools.count()


@dataclass
class ScriptedSource:
    """Files in memory, in pieces of three bytes; `faults` maps (name, start) to what is raised there, once."""

    contents: dict[str, bytes]
    sha256: dict[str, str] = field(default_factory=dict)
    faults: dict[tuple[str, int], list[Exception]] = field(default_factory=dict)
    streamed: list[tuple[str, int]] = field(default_factory=list)
    uri: str = "scripted://source"
    pinned_revision: str = ""
    is_single_file: bool = False

    def files(self) -> list[SourceFile]:
        return [
            SourceFile(name, len(data), hashlib.md5(data).hexdigest(), sha256=self.sha256.get(name, ""))
            for name, data in sorted(self.contents.items())
        ]

    def stream(self, file: SourceFile, start: int) -> Iterator[bytes]:
        self.streamed.append((file.name, start))
        for position in range(start, len(self.contents[file.name]), 3):
            faults = self.faults.get((file.name, position))
            if faults:
                raise faults.pop(0)
            yield self.contents[file.name][position : position + 3]

    def copy_uri(self, file: SourceFile) -> str | None:
        return None

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def stage() -> StageInput:
    return import_stage(f"memory://copying-{next(_names)}", "scripted://source")


def copy(source: ScriptedSource, stage: StageInput, *, stop_after: int | None = None) -> Copier:
    """Copy everything; `stop_after` bytes the process is asked to stop."""
    context = context_of(stage)
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        if stop_after is not None and done >= stop_after:
            raise Interrupted("asked to stop")

    copier = Copier(source, context.store, context.publication, stage, lambda _: None, on_bytes)
    copier.copy_all(source.files())
    context.publication.commit()
    return copier


def test_a_transient_failure_goes_on_at_the_byte_where_it_was(stage: StageInput) -> None:
    source = ScriptedSource({"a": b"0123456789"}, faults={("a", 6): [RetryableError("reset"), RetryableError("503")]})

    pieces = list(stream_all(source, source.files()[0], wait=lambda _: None))

    assert b"".join(pieces) == b"0123456789"
    assert source.streamed == [("a", 0), ("a", 6), ("a", 6)]


def test_a_source_that_keeps_failing_at_one_byte_is_given_up() -> None:
    faults = [RetryableError(f"failure {number}") for number in range(ATTEMPTS)]
    source = ScriptedSource({"a": b"0123"}, faults={("a", 3): faults})
    pauses: list[float] = []

    with pytest.raises(RetryableError, match=f"failure {ATTEMPTS - 1}"):
        list(stream_all(source, source.files()[0], wait=pauses.append))

    assert len(pauses) == ATTEMPTS - 1
    assert FIRST_PAUSE_SECONDS / 2 <= pauses[0] <= FIRST_PAUSE_SECONDS
    assert all(pause <= LONGEST_PAUSE_SECONDS for pause in pauses)


def test_progress_between_failures_resets_the_count() -> None:
    data = bytes(3 * 2 * ATTEMPTS)
    source = ScriptedSource({"a": data}, faults={("a", at): [RetryableError("x")] for at in range(0, len(data), 3)})

    pieces = list(stream_all(source, source.files()[0], wait=lambda _: None))

    assert b"".join(pieces) == data


def test_a_stream_that_ends_early_is_taken_up_again_and_one_that_is_too_long_is_refused() -> None:
    source = ScriptedSource({"a": b"012345"})
    listed = source.files()[0]

    with pytest.raises(RetryableError, match="ended at byte 6 of 7"):
        list(stream_all(source, replace(listed, size=7), wait=lambda _: None))
    with pytest.raises(SourceChangedError, match="longer than the 5 bytes"):
        list(stream_all(source, replace(listed, size=5), wait=lambda _: None))


def test_the_start_of_a_file_is_read_without_the_rest() -> None:
    source = ScriptedSource({"a": b"0123456789"}, faults={("a", 6): [AssertionError("read too far")]})

    assert read_start(source, source.files()[0], 5, wait=lambda _: None) == b"01234"


def test_an_action_is_tried_again_while_it_may_succeed() -> None:
    answers = iter([RetryableError("a"), RetryableError("b"), None])

    def action() -> str:
        answer = next(answers)
        if answer is not None:
            raise answer
        return "done"

    assert retrying(action, wait=lambda _: None) == "done"


def test_finished_files_of_an_earlier_attempt_are_adopted(stage: StageInput) -> None:
    source = ScriptedSource({"a": b"aaaaaa", "b": b"bbbbbb"})
    with pytest.raises(Interrupted):
        copy(source, stage, stop_after=9)
    source.streamed.clear()

    copier = copy(source, stage.model_copy(update={"attempt_id": "a2"}))

    assert source.streamed == [("b", 0)]
    assert copier.num_adopted == 1


def test_a_finished_file_whose_source_is_another_now_is_not_adopted(stage: StageInput) -> None:
    """A branch that moved between two attempts must not leave one half of each commit."""
    source = ScriptedSource({"a": b"aaaaaa", "b": b"bbbbbb"})
    with pytest.raises(Interrupted):
        copy(source, stage, stop_after=9)
    source.contents["a"] = b"AAAAAA"
    source.streamed.clear()

    copier = copy(source, stage.model_copy(update={"attempt_id": "a2"}))

    assert source.streamed == [("a", 0), ("b", 0)]
    assert copier.num_adopted == 0


def test_a_file_that_does_not_have_the_promised_digest_is_never_kept(stage: StageInput) -> None:
    promised = hashlib.sha256(b"aaaaaa").hexdigest()
    source = ScriptedSource({"a": b"aaaaXa"}, sha256={"a": promised})

    with pytest.raises(CorruptError, match=promised):
        copy(source, stage)

    assert not is_committed(stage.storage)
    assert context_of(stage).publication.receipts() == {}


def test_a_source_that_changes_behind_the_copy_is_not_published(stage: StageInput) -> None:
    """The first file is rewritten while the second one is read: each is whole, together they are no model."""
    source = ScriptedSource({"a": b"aaaaaa", "b": b"bbbbbb"})

    class Rewritten(ScriptedSource):
        def stream(self, file: SourceFile, start: int) -> Iterator[bytes]:
            yield from super().stream(file, start)
            if file.name == "b":
                self.contents["a"] = b"AAAAAA"

    with pytest.raises(SourceChangedError, match="a changed while it was read: it is another file now"):
        copy(Rewritten(source.contents), stage)

    assert not is_committed(stage.storage)


def test_a_file_that_vanishes_behind_the_copy_is_not_published(stage: StageInput) -> None:
    class Vanishing(ScriptedSource):
        def stream(self, file: SourceFile, start: int) -> Iterator[bytes]:
            yield from super().stream(file, start)
            if file.name == "b":
                del self.contents["a"]

    with pytest.raises(SourceChangedError, match="it is gone"):
        copy(Vanishing({"a": b"a", "b": b"b"}), stage)

    assert not is_committed(stage.storage)
