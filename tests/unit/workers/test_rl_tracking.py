"""Trackers are views: told once, of everything, and never worth a failure."""

from __future__ import annotations

import json

import pytest
import structlog
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.builders.rl_stage import context_of, rl_stage, run_rl
from warpctl import artifacts
from warpctl.errors import FinalError
from warpctl.spec.tracking import TrackerType, Tracking
from warpctl.storage.store import Store
from warpctl.workers.rl import main
from warpctl.workers.tracking import NAMES, Tracker, curve_name, last_shown_step, start_tracker

TENSOR_BOARD = Tracking(type=TrackerType.TENSOR_BOARD, project="curves")


def tracked(stage, tracking=TENSOR_BOARD):
    return stage.model_copy(update={"task": stage.task.model_copy(update={"tracking": tracking})})


def records(*steps):
    return [{"step": step, "reward": float(step), "warnings": ["EntropyCollapse"]} for step in steps]


class Sink:
    """What accelerate's trackers are to us; fails at the given call."""

    def __init__(self, *, fails_at=None):
        self.fails_at, self.told, self.is_finished = fails_at, [], False

    def log(self, values, step):
        if len(self.told) == self.fails_at:
            raise ConnectionError("no route to the server")
        self.told.append((step, values))

    def finish(self):
        self.is_finished = True


def events(folder):
    curves = EventAccumulator(str(folder))
    curves.Reload()
    return [(point.step, point.value) for point in curves.Scalars("train/reward")]


def test_a_curve_is_named_after_run_iteration_member_and_key_and_not_after_the_attempt(tmp_path):
    first, second = (rl_stage(str(tmp_path), attempt_id=attempt, member=2) for attempt in ("1", "2"))

    assert curve_name(first) == curve_name(second) == "default.test.rl-1-2.22222222"


def test_every_record_is_told_once_under_the_names_of_trl():
    sink = Sink()
    tracker = Tracker(structlog.get_logger(), sink=sink, last_step=1)

    tracker.tell(records(0, 1, 2))
    tracker.tell(records(2, 3))
    tracker.finish()

    assert sink.told == [(2, {"train/reward": 2.0}), (3, {"train/reward": 3.0})]
    assert sink.is_finished


def test_every_number_of_a_step_has_a_name(tmp_path):
    """A new metric that nobody named would be missing from every tracker."""
    lines = run_rl(rl_stage(str(tmp_path))).read("metrics.jsonl").decode().splitlines()
    fields = {name for line in lines for name in json.loads(line)}

    assert fields - {"step", "warnings"} == set(NAMES)


def test_a_tracker_that_fails_costs_one_warning_and_is_left_alone():
    sink = Sink(fails_at=1)
    with structlog.testing.capture_logs() as logs:
        tracker = Tracker(structlog.get_logger(), type="WandB", curve="c", sink=sink)
        tracker.tell(records(0, 1, 2))
        tracker.tell(records(3))
        tracker.finish()

    assert [step for step, _ in sink.told] == [0]
    assert [(log["log_level"], log["during"]) for log in logs] == [("warning", "log")]
    assert "no route to the server" in logs[0]["error"]
    assert tracker.state() == {}


def test_a_tracker_that_cannot_start_changes_nothing_in_the_run(tmp_path):
    """Its folder is a file."""
    reference = run_rl(rl_stage(str(tmp_path / "reference")))
    (tmp_path / "file").write_text("in the way")
    tracking = TENSOR_BOARD.model_copy(update={"uri": str(tmp_path / "file")})

    with structlog.testing.capture_logs() as logs:
        artifact = run_rl(tracked(rl_stage(str(tmp_path / "store")), tracking))

    assert artifact.manifest.content_digest == reference.manifest.content_digest
    assert [log["event"] for log in logs if log["log_level"] == "warning"] == [
        "tracker does not start; training goes on without it"
    ]


def test_a_library_that_is_not_installed_is_told_before_anything_is_loaded(tmp_path):
    """MLflow is not among the tools of this project; the stage has no policy that could be loaded."""
    stage = tracked(rl_stage(str(tmp_path)), Tracking(type=TrackerType.ML_FLOW))
    stage = stage.model_copy(update={"inputs": ()})

    with pytest.raises(FinalError, match="mlflow is not installed in this worker") as error:
        main(context_of(stage))

    assert 'pip install "warpctl[mlflow]"' in error.value.hint


def shown(store, stage, attempt_id, *steps):
    for number, step in enumerate(steps):
        path = artifacts.metrics(stage.kind, stage.key, attempt_id, number)
        store.write(path, json.dumps({"step": step}).encode() + b"\n")


def test_the_last_shown_step_is_that_of_any_attempt(tmp_path):
    stage = rl_stage(str(tmp_path))
    store = Store.open(str(tmp_path))

    assert last_shown_step(store, stage) == -1
    shown(store, stage, "1", 3, 7)
    shown(store, stage, "2", 5)

    assert last_shown_step(store, stage) == 7


def test_what_was_told_and_not_shown_is_taken_back(tmp_path):
    """Killed between the two: the next attempt tells these steps again, and TensorBoard shows them once."""
    stage = tracked(rl_stage(str(tmp_path)))
    store = Store.open(str(tmp_path))
    log = structlog.get_logger()
    first = start_tracker(TENSOR_BOARD, stage, store, log, resumed=None)
    first.tell(records(0, 1, 2, 3))
    first.finish()
    shown(store, stage, "1", 1)

    second = start_tracker(TENSOR_BOARD, stage, store, log, resumed=first.state())
    second.tell(records(0, 1, 2, 3, 4))
    second.finish()

    folder = tmp_path / artifacts.tensorboard("default", "test") / "curves" / curve_name(stage)
    assert events(folder) == [(step, float(step)) for step in range(5)]


@pytest.mark.parametrize(("resumed", "first"), [({"type": "TensorBoard", "curve": "mine"}, 3), ({}, 0), (None, 3)])
def test_a_state_that_knows_no_such_tracker_means_a_curve_from_the_beginning(tmp_path, resumed, first):
    """After a tracker was changed or had failed, what attempts have shown says nothing of this one."""
    stage = tracked(rl_stage(str(tmp_path)))
    store = Store.open(str(tmp_path))
    shown(store, stage, "1", 2)

    tracker = start_tracker(TENSOR_BOARD, stage, store, structlog.get_logger(), resumed=resumed)
    tracker.finish()

    assert tracker.last_step + 1 == first
    assert tracker.curve == ("mine" if resumed else curve_name(stage))
