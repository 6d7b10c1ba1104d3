"""Progress of a worker: a view at a bounded rate, and lines in its log."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tests.builders.contexts import context_of
from tests.builders.import_stage import import_stage
from warpctl import artifacts
from warpctl.telemetry.log import logger
from warpctl.workers import harness


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(harness.time, "monotonic", lambda: now[0])
    return now


def test_the_log_shows_the_first_progress_the_last_and_one_in_ten_seconds(tmp_path: Path, clock: list[float]) -> None:
    context, text = context_of(import_stage(str(tmp_path), "x")), io.StringIO()
    context.log = logger(text)
    for step in range(1, 26):
        clock[0] += 1.0
        context.report_progress(step, 25, "steps", score=step / 2, kl=0.125)

    lines = [line.split(" progress ")[1] for line in text.getvalue().splitlines()]
    assert lines == [
        "steps=1/25 score=0.5 kl=0.125",
        "steps=11/25 score=5.5 kl=0.125",
        "steps=21/25 score=10.5 kl=0.125",
        "steps=25/25 score=12.5 kl=0.125",
    ]


def test_a_phase_reaches_the_view(tmp_path: Path, clock: list[float]) -> None:
    stage = import_stage(str(tmp_path), "x")
    context = context_of(stage)
    clock[0] += 1.0
    context.report_progress(3, 25, "steps", phase="waiting for reward")
    view = context.store.read(artifacts.progress(stage.kind, stage.key, stage.attempt_id))

    assert json.loads(view)["phase"] == "waiting for reward"
