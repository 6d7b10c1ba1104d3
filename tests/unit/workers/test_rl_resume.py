"""Stopped or killed anywhere, an RL run ends with the very bits of an uninterrupted one: weights and metrics."""

from __future__ import annotations

import contextlib
import errno

import pytest

from tests.builders.rl_stage import context_of, rl_stage, run_rl, training
from warpctl import artifacts
from warpctl.errors import CorruptError, Interrupted
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store
from warpctl.workers import resume_state
from warpctl.workers.harness import StopFlag
from warpctl.workers.rl import main

CHANGES = ("write", "create_once", "open_write", "delete", "delete_tree")


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class MortalStore:
    """Counts the store's changes and dies before the chosen one."""

    def __init__(self, store, *, dies_at=None, error=Killed):
        self._store, self._dies_at, self._error = store, dies_at, error
        self.changes = []

    def __getattr__(self, name):
        value = getattr(self._store, name)
        if name not in CHANGES:
            return value

        def change(path, *arguments):
            if len(self.changes) == self._dies_at:
                raise self._error
            self.changes.append((name, path))
            return value(path, *arguments)

        return change


class StopsAfter(StopFlag):
    """SIGTERM that comes during a step: seen at the boundary after `steps` of them."""

    def __init__(self, steps):
        super().__init__()
        self._left = steps

    def is_set(self):
        self._left -= 1
        return self._left < 0


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An uninterrupted run and the changes that it made to the store."""
    storage = str(tmp_path_factory.mktemp("reference"))
    store = MortalStore(Store.open(storage))
    artifact = run_rl(rl_stage(storage), store=store)
    return artifact, store.changes


def assert_same_bits(artifact, reference):
    assert artifact.names() == reference.names()
    for name in reference.names():
        assert artifact.read(name) == reference.read(name), name
    assert artifact.manifest.content_digest == reference.manifest.content_digest


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5])
def test_sigterm_saves_at_the_next_step_boundary_and_the_next_attempt_goes_on(tmp_path, reference, steps):
    storage = str(tmp_path)
    stage = rl_stage(storage)

    with pytest.raises(Interrupted, match=f"after step {steps} of 6"):
        main(context_of(stage, stop=StopsAfter(steps)))
    assert [state.step for state in resume_state.find(Store.open(storage), stage)] == ([steps] if steps else [])
    artifact = run_rl(rl_stage(storage, attempt_id="2"))

    assert_same_bits(artifact, reference[0])


def kill_points(changes):
    """Around the second save (its files, its marker, the drop of the first), while publishing, and a few others."""
    saving = [n for n, (_, path) in enumerate(changes) if "/resume/00000004/" in path or "/resume/00000002" in path]
    publishing = [n for n, (_, path) in enumerate(changes) if "/files/" in path or path.endswith("/committed.json")]
    return sorted({*saving[::2], *publishing[::3], *range(0, len(changes), 9)})


def test_killed_before_any_change_to_the_store_it_ends_with_the_same_bits(tmp_path, reference):
    """Between save and commit, while dropping old states, while publishing: each time a second attempt finishes."""
    artifact, changes = reference
    points = kill_points(changes)
    resumed = 0
    for point in points:
        storage = str(tmp_path / str(point))
        with contextlib.suppress(Killed):
            main(context_of(rl_stage(storage), store=MortalStore(Store.open(storage), dies_at=point)))
        stage = rl_stage(storage, attempt_id="2")
        resumed += bool(resume_state.find(Store.open(storage), stage))
        if Store.open(storage).read_or_none(artifacts.marker("rl", stage.key)) is None:
            run_rl(stage)
        assert_same_bits(Artifact.load(Store.open(storage), "rl", stage.key), artifact)

    assert len(points) > 10
    assert resumed > len(points) // 3


def test_the_newest_state_of_any_attempt_is_taken(tmp_path, reference):
    """Attempt 1 reaches step 5, attempt 2 is stopped before it does anything, attempt 3 goes on from step 5."""
    storage = str(tmp_path)
    for attempt_id, steps in (("1", 5), ("2", 0)):
        with contextlib.suppress(Interrupted):
            main(context_of(rl_stage(storage, attempt_id=attempt_id), stop=StopsAfter(steps)))
    stage = rl_stage(storage, attempt_id="3")
    store = MortalStore(Store.open(storage))

    artifact = run_rl(stage, store=store)

    assert_same_bits(artifact, reference[0])
    assert not [path for _, path in store.changes if "/3/resume/" in path]


def test_a_damaged_state_is_passed_over_for_an_older_one(tmp_path, reference):
    storage = str(tmp_path)
    store = Store.open(storage)
    for attempt_id, steps in (("1", 2), ("2", 2)):
        with contextlib.suppress(Interrupted):
            main(context_of(rl_stage(storage, attempt_id=attempt_id), stop=StopsAfter(steps)))
    stage = rl_stage(storage, attempt_id="3")
    newest = resume_state.find(store, stage)[0]
    assert (newest.step, newest.attempt_id) == (4, "2")
    store.write(f"{artifacts.resume('rl', stage.key, '2', 4)}/policy.safetensors", b"other bytes")

    assert_same_bits(run_rl(stage), reference[0])


def test_a_state_that_was_made_from_another_init_is_passed_over(tmp_path, reference):
    """The init was lost and made again with other bits, under the same key: its task vector would be meaningless."""
    storage = str(tmp_path)
    stage = rl_stage(storage)
    before = tuple(
        item.model_copy(update={"content_digest": "of the init that was lost"}) if item.role == "init" else item
        for item in stage.inputs
    )
    with contextlib.suppress(Interrupted):
        main(context_of(stage.model_copy(update={"inputs": before}), stop=StopsAfter(3)))
    store = Store.open(storage)
    assert [state.step for state in resume_state.find(store, stage)] == [3]

    again = rl_stage(storage, attempt_id="2")

    assert [type(state) for state in resume_state.load_newest(store, again)] == [CorruptError]
    assert_same_bits(run_rl(again), reference[0])


def test_a_folder_without_its_marker_is_no_state(tmp_path):
    storage = str(tmp_path)
    stage = rl_stage(storage)
    with contextlib.suppress(Interrupted):
        main(context_of(stage, stop=StopsAfter(3)))
    store = Store.open(storage)
    store.delete(f"{artifacts.resume('rl', stage.key, '1', 3)}/committed.json")

    assert [state.step for state in resume_state.find(store, stage)] == []


def test_a_full_disk_while_saving_is_an_error_and_the_next_attempt_goes_on(tmp_path, reference):
    """ENOSPC at the second save: what the first one left is enough."""
    storage = str(tmp_path)
    artifact, changes = reference
    second = next(n for n, (_, path) in enumerate(changes) if "/resume/00000004/" in path)
    store = MortalStore(Store.open(storage), dies_at=second, error=OSError(errno.ENOSPC, "No space left on device"))

    with pytest.raises(OSError, match="No space left"):
        main(context_of(rl_stage(storage), store=store))
    stage = rl_stage(storage, attempt_id="2")
    assert [state.step for state in resume_state.find(Store.open(storage), stage)] == [2]

    assert_same_bits(run_rl(stage), artifact)


def test_the_emas_state_is_part_of_what_is_resumed(tmp_path):
    """Were the anchor restarted at the policy, the KL to the anchor of the next step would be 0."""
    storage = str(tmp_path)
    stage = rl_stage(storage, settings=training(emaRate="0.01"))
    with contextlib.suppress(Interrupted):
        main(context_of(stage, stop=StopsAfter(5)))
    newest = next(iter(resume_state.load_newest(Store.open(storage), stage)))

    difference = sum(
        (newest.tensors["policy"][n] - newest.tensors["anchor"][n]).abs().sum() for n in newest.tensors["policy"]
    )
    assert difference > 1e-3
    assert set(newest.tensors) == {"policy", "anchor", "optimizer"}
