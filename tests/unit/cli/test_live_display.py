"""The tree on a terminal: what it draws, in colour, without, and in a narrow window."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.unit.cli.golden import check
from tests.unit.cli.test_transitions import NOW, at, stage, status
from warpctl.cli.live_display import LiveDisplay, group_state, picture_groups
from warpctl.cli.stage_table import progress_text
from warpctl.cli.terminal import ASCII, bar
from warpctl.spec.status import (
    READY,
    RECONCILING,
    STALLED,
    SUCCEEDED,
    SUSPENDED,
    Condition,
    ConditionStatus,
    Progress,
    RunStatus,
    StageState,
)

ESTIMATE = {"mean": 1.5, "low": 1.4, "high": 1.6}
FRONT = {
    "maxKl": 20.0,
    "measures": ["reward"],
    "points": [
        {"iteration": 1, "control": "", "label": "LITI 0.3", "kl": {"mean": 9.8}, "reward": ESTIMATE, "heldOut": {}},
        {
            "iteration": 1,
            "control": "",
            "label": "SFT",
            "kl": {"mean": 0.0},
            "reward": {"mean": 0.1, "low": 0, "high": 0},
            "heldOut": {},
        },
        {
            "iteration": 1,
            "control": "",
            "label": "beyond the budget",
            "kl": {"mean": 30.0},
            "reward": {"mean": 9.0, "low": 0, "high": 0},
            "heldOut": {},
        },
    ],
}


def a_status() -> RunStatus:
    steps = Progress(done=12, total=40, unit="steps", elapsed_seconds=6.0, fields={"reward": 1.234, "kl": 0.5})
    done = {"state": StageState.SUCCEEDED, "attempts": 1, "started_at": at(-20), "ended_at": at(-8)}
    parts = status(
        stage("rl/1/1", **done),
        stage("merge/1", **done),
        stage("evaluate/1", **done),
        stage("rl/2/1", StageState.RUNNING, attempts=2, progress=steps),
        stage("rl/2/2", StageState.RUNNING, attempts=1, started_at=at(-3)),
        stage("merge/2", StageState.WAITING),
        stage("rl/3/1", StageState.RETRYING, attempts=1, message="exit code 1: no memory"),
        stage("rl/3/2", StageState.QUEUED),
        stage("rl/4/1", StageState.WAITING),
    )
    conditions = tuple(
        Condition(
            type=kind,
            status=ConditionStatus.TRUE if kind == RECONCILING else ConditionStatus.FALSE,
            reason="",
            message="",
        )
        for kind in (READY, RECONCILING, STALLED, SUSPENDED, SUCCEEDED)
    )
    return parts.model_copy(update={"conditions": conditions, "iteration": 1, "iterations": 4})


def draw(
    monkeypatch: pytest.MonkeyPatch,
    *,
    color_system: str | None,
    width: int = 100,
    height: int = 40,
    is_compact: bool = False,
    seen: RunStatus | None = None,
) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    console = Console(file=stream, force_terminal=True, color_system=color_system, width=width, height=height)
    display = LiveDisplay(units={}, slots=2, load_front=lambda: FRONT, is_compact=is_compact, console=console)
    display.show(seen or a_status(), {}, {}, NOW)
    # Not started: what would be drawn, without the terminal's control codes.
    with console.capture() as capture:
        console.print(display._live.get_renderable())
    return capture.get()


def test_the_tree_shows_iterations_stages_steps_and_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    check("live-tree.txt", draw(monkeypatch, color_system=None))


def test_no_color_means_no_bold_and_no_dim_and_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = draw(monkeypatch, color_system=None)

    assert text.isascii()
    assert "\x1b[" not in text
    check("live-tree-ascii.txt", text)


def test_colour_changes_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = draw(monkeypatch, color_system="standard")

    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == draw(monkeypatch, color_system=None)


def test_a_narrow_window_cuts_lines_and_wraps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    wide, narrow = draw(monkeypatch, color_system=None), draw(monkeypatch, color_system=None, width=40)

    assert len(narrow.splitlines()) == len(wide.splitlines())
    assert max(map(len, narrow.splitlines())) <= 40


def many_members() -> RunStatus:
    done = {"state": StageState.SUCCEEDED, "attempts": 1, "started_at": at(-20)}
    steps = Progress(done=12, total=40, unit="steps", elapsed_seconds=6.0)
    members = (
        *(stage(f"rl/2/{member}", ended_at=at(-8 - member), **done) for member in range(1, 4)),
        stage("rl/2/4", StageState.RUNNING, attempts=2, progress=steps),
        stage("rl/2/5", StageState.QUEUED),
        stage("rl/2/6", StageState.QUEUED),
        stage("merge/2", StageState.WAITING),
    )
    return a_status().model_copy(update={"stages": (*a_status().stages[:3], *members)})


def test_a_compact_tree_has_one_row_for_members_with_the_same_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    check("live-tree-compact.txt", draw(monkeypatch, color_system=None, is_compact=True, seen=many_members()))


def test_a_tree_that_does_not_fit_is_compact_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    compact = draw(monkeypatch, color_system=None, is_compact=True, seen=many_members())
    num_full = len(draw(monkeypatch, color_system=None, seen=many_members()).splitlines())

    assert len(compact.splitlines()) < num_full
    assert draw(monkeypatch, color_system=None, height=num_full - 1, seen=many_members()) == compact


def test_controls_and_the_report_come_last() -> None:
    seen = a_status().stages
    from warpctl.spec.status import StageStatus

    more = [
        StageStatus(id="report/final", kind="report", state=StageState.PENDING),
        StageStatus(id="control/NoAnchor/rl", kind="rl", state=StageState.PENDING),
        *seen,
    ]

    assert [title for title, _ in picture_groups(more)][-2:] == ["control NoAnchor", "report"]


def test_a_group_that_is_partly_done_is_running() -> None:
    done, waiting = stage("rl/1/1", StageState.SUCCEEDED), stage("merge/1", StageState.WAITING)

    assert group_state([done, waiting]) is StageState.RUNNING
    assert group_state([done, done]) is StageState.SUCCEEDED
    assert group_state([waiting]) is StageState.WAITING


def test_bars_fill_from_the_left_and_never_overflow() -> None:
    assert [bar(share, ASCII) for share in (0, 0.5, 1, 7)] == ["-" * 12, "#" * 6 + "-" * 6, "#" * 12, "#" * 12]


def test_a_phase_is_said_in_words_after_the_figures() -> None:
    waiting = Progress(done=12, total=40, unit="steps", fields={"phase": "waiting for reward", "score": 1.5})

    assert progress_text(waiting) == "step 12/40  score 1.5  (waiting for reward)"
