"""Engine passes over a real store with workers that publish in-process: the parts of the engine together, without processes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.builders.world import a_run
from warpctl import artifacts
from warpctl.engine import Engine
from warpctl.errors import StoreUnavailableError
from warpctl.executors.base import StartRefusedError
from warpctl.plan.actions import Start
from warpctl.plan.observed import Attempt, AttemptState, FailureClass
from warpctl.plan.stages import StageGraph, stages
from warpctl.render.stage_input import stage_input
from warpctl.spec.stage_input import Resources
from warpctl.spec.status import READY, SUCCEEDED, StageState
from warpctl.spec.warp_run import WarpRun
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.storage.wanted import read_wanted

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Crash(BaseException):
    """The engine dies here."""


@dataclass
class InProcessExecutor:
    """Publishes a stage when its attempt is asked to finish. Its attempts outlive the engine, as processes do."""

    run: WarpRun
    store: Store
    seen: dict[str, tuple[Attempt, ...]] = field(default_factory=dict)
    starts: dict[str, Start] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)

    def attempts(self) -> dict[str, tuple[Attempt, ...]]:
        return dict(self.seen)

    def start(self, start: Start) -> bool:
        key = start.stage.key
        assert all(attempt.state is not AttemptState.ACTIVE for attempt in self.seen.get(key, ()))
        attempt_id = f"{start.number}-{len(self.started)}"
        self.started.append(start.stage.id)
        self.seen[key] = (
            *self.seen.get(key, ()),
            Attempt(key, start.number, attempt_id, AttemptState.ACTIVE, started_at=NOW),
        )
        self.starts[attempt_id] = start
        return True

    def stop(self, attempt: Attempt, reason: str) -> None:
        self._end(attempt, AttemptState.FAILED, FailureClass.INTERRUPTED, reason)

    def forget(self, key: str) -> None:
        self.seen.pop(key, None)

    def active(self) -> list[Attempt]:
        return [a for attempts in self.seen.values() for a in attempts if a.state is AttemptState.ACTIVE]

    def finish_all(self) -> None:
        for attempt in self.active():
            self.publish(attempt)
            self._end(attempt, AttemptState.COMPLETE, None, "")

    def publish(self, attempt: Attempt) -> None:
        start = self.starts[attempt.attempt_id]
        told = stage_input(
            self.run, start, attempt_id=attempt.attempt_id, storage=self.store.root, resources=Resources()
        )
        publication = Publication(self.store, told, now=lambda: NOW)
        publication.write_file("model.safetensors", start.stage.id.encode())
        publication.write_file("metrics.jsonl", b"{}")
        publication.commit()

    def _end(self, attempt: Attempt, state: AttemptState, failure: FailureClass | None, message: str) -> None:
        ended = replace(attempt, state=state, failure=failure, message=message, ended_at=NOW)
        self.seen[attempt.key] = tuple(
            ended if old.attempt_id == attempt.attempt_id else old for old in self.seen[attempt.key]
        )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def finish(engine: Engine, executor: InProcessExecutor, *, now: datetime = NOW) -> None:
    for _ in range(40):
        if engine.tick(now).is_true(SUCCEEDED):
            return
        executor.finish_all()
    raise AssertionError("the run does not end")


def test_a_run_goes_from_nothing_to_succeeded_and_the_second_time_is_all_cached(store: Store) -> None:
    run = a_run(controls=["NoAnchor"])
    executor = InProcessExecutor(run, store)
    finish(Engine(run, executor, store), executor)
    again = InProcessExecutor(run, store)

    status = Engine(run, again, store).tick(NOW)

    assert status.is_true(SUCCEEDED)
    assert again.started == []
    assert all(stage.cached for stage in status.stages if stage.state is StageState.SUCCEEDED)
    assert len(executor.started) == len(set(executor.started))


def test_wanted_is_written_before_the_first_attempt_of_a_generation(store: Store) -> None:
    run = a_run()
    executor = InProcessExecutor(run, store)
    engine = Engine(run, executor, store)
    engine.tick(NOW)
    first = read_wanted(store, "default", "demo")
    executor.finish_all()
    engine.tick(NOW)
    second = read_wanted(store, "default", "demo")

    assert {stage.kind for stage in first.stages} == {"import"}
    assert {executor.starts[a.attempt_id].stage.key for a in executor.active()} <= {s.key for s in second.stages}


@pytest.mark.parametrize("crash_after", range(1, 30, 2))
def test_an_engine_that_dies_after_any_action_is_followed_by_one_that_finishes(store: Store, crash_after: int) -> None:
    run = a_run()
    executor = InProcessExecutor(run, store)
    engine = Engine(run, executor, store)
    performed = 0
    original = engine.perform

    def perform(action: object, now: datetime) -> None:
        nonlocal performed
        original(action, now)
        performed += 1
        if performed == crash_after:
            raise Crash

    engine.perform = perform
    with contextlib.suppress(Crash):
        finish(engine, executor)
    finish(Engine(run, executor, store), executor)

    assert performed <= crash_after
    assert len(executor.started) == len(set(executor.started))


def test_a_stage_that_another_run_published_in_the_meantime_is_not_started(store: Store) -> None:
    one, other = a_run(name="one"), a_run(name="other")
    first, second = InProcessExecutor(one, store), InProcessExecutor(other, store)
    engine, rival = Engine(one, first, store), Engine(other, second, store)
    engine.tick(NOW)
    first.finish_all()

    observed = rival.observe()
    rival.tick(NOW)

    assert observed.committed
    assert not any(stage.startswith("import") for stage in second.started)


def test_an_artifact_whose_files_are_gone_is_made_again_only_if_it_is_needed(store: Store) -> None:
    run = a_run()
    executor = InProcessExecutor(run, store)
    engine = Engine(run, executor, store)
    while "merge/1" not in executor.started:
        engine.tick(NOW)
        executor.finish_all()
    lost = [attempt for attempt in executor.starts.values() if attempt.stage.id in {"merge/1", "rl/1/1"}]
    for start in lost:
        for file in store.list(f"{artifacts.stage(start.stage.kind, start.stage.key)}/attempts"):
            store.delete(file.path)

    later = InProcessExecutor(run, store)
    finish(Engine(run, later, store, retry_since=NOW + timedelta(seconds=1)), later)

    # Iteration 2 needs the merge, and the merge its members; the import is whole and stays.
    assert "merge/1" in later.started
    assert "rl/1/1" in later.started
    assert "rl/1/2" not in later.started
    assert "import/sft" not in later.started


def test_retention_leaves_the_last_merged_policy_and_the_evaluations(store: Store) -> None:
    run = a_run(retention={"members": "UntilEvaluated", "merges": "Last"})
    executor = InProcessExecutor(run, store)
    engine = Engine(run, executor, store)
    tomorrow = datetime.now(UTC) + timedelta(days=1)  # the files have real times
    finish(engine, executor, now=tomorrow)
    for _ in range(3):
        engine.tick(tomorrow)
    left = [file.path.split("/") for file in store.list("stages")]
    weights = [path[1] for path in left if path[-1] == "model.safetensors"]
    records = [path[1] for path in left if path[-1] == "committed.json"]

    assert (weights.count("rl"), weights.count("merge"), weights.count("evaluate")) == (0, 1, 2)
    assert (records.count("rl"), records.count("merge")) == (4, 2)
    assert sum(path[1] == "rl" and path[-1] == "metrics.jsonl" for path in left) == 4


def test_the_views_show_the_newest_report_and_the_first_one_again_when_an_edit_is_reverted(store: Store) -> None:
    run, edited = a_run(), a_run(evaluation={"confidenceLevel": "0.8"})
    shown = []
    for each in (run, edited, run):
        executor = InProcessExecutor(each, store)
        engine = Engine(each, executor, store)
        finish(engine, executor)
        engine.tick(NOW)
        shown.append(engine.views.shown())

    assert shown[0] != shown[1]
    assert shown[2] == shown[0]
    assert store.stat(artifacts.report("default", "demo", "metrics.jsonl")) is not None


def test_a_store_that_is_down_ends_the_pass_and_the_next_one_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run()
    executor = InProcessExecutor(run, store)
    engine = Engine(run, executor, store)

    def down(*_: object) -> bytes:
        raise StoreUnavailableError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "read_or_none", down)
        with pytest.raises(StoreUnavailableError):
            engine.tick(NOW)
    finish(engine, executor)

    assert executor.started[0] == "import/sft"


def test_an_attempt_that_may_not_be_made_says_why_and_holds_up_no_other(store: Store) -> None:
    class Refusing(InProcessExecutor):
        def start(self, start: Start) -> bool:
            if start.stage.id == "import/sft" and not self.active():
                raise StartRefusedError("exceeded quota")
            return super().start(start)

    run = a_run()
    executor = Refusing(run, store)
    engine = Engine(run, executor, store)

    status = engine.tick(NOW)

    rows = {row.id: row for row in status.stages}
    assert (rows["import/sft"].state, rows["import/sft"].message) == (StageState.QUEUED, "exceeded quota")
    assert "import/prompts" in executor.started
    assert status.condition(READY).reason == "Waiting"
    assert engine.tick(NOW).condition(READY).reason == "Progressing"


def test_a_pass_makes_the_graph_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is half of the work of a pass in which nothing has changed."""
    made: list[bool] = []

    def counted(*arguments: Any) -> StageGraph:
        made.append(True)
        return stages(*arguments)

    for module in ("warpctl.engine", "warpctl.plan.planner", "warpctl.plan.progress"):
        monkeypatch.setattr(f"{module}.stages", counted)
    run = a_run()
    Engine(run, InProcessExecutor(run, store), store).tick(NOW)

    assert len(made) == 1


def test_what_was_lost_is_found_by_looking_anew(store: Store) -> None:
    run = a_run()
    executor = InProcessExecutor(run, store)
    engine = Engine(run, executor, store)
    while "merge/1" not in executor.started:
        engine.tick(NOW)
        executor.finish_all()
    start = next(each for each in executor.starts.values() if each.stage.id == "rl/1/1")
    for file in store.list(f"{artifacts.stage('rl', start.stage.key)}/attempts"):
        store.delete(file.path)

    assert engine.observe().broken == frozenset()
    engine.look_anew()
    assert engine.observe().broken == {start.stage.key}
