"""Progress in a terminal: a tree of iterations that is drawn again in place, on stderr. Failures stay as lines above it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from warpctl.cli.durations import duration_text, seconds_between
from warpctl.cli.eta import remaining
from warpctl.cli.stage_table import icon, progress_text, remaining_seconds, time_text
from warpctl.cli.status_text import state_word
from warpctl.cli.terminal import Symbols, bar, is_plain, spell, symbols
from warpctl.cli.transitions import Attempts, transitions
from warpctl.reports.best import best_entry
from warpctl.reports.summary import plus_minus
from warpctl.spec.stage_input import StageKind
from warpctl.spec.status import RunStatus, StageState, StageStatus

NARROW = 64
"""Below this many columns there are no bars: the figures say the same."""
COLOURS = {
    StageState.RUNNING: "cyan",
    StageState.RETRYING: "yellow",
    StageState.STALLED: "red",
    StageState.SUCCEEDED: "green",
}
_DONE = (StageState.SUCCEEDED, StageState.UNNEEDED)
_IDLE = (StageState.PENDING, StageState.WAITING)


class LiveDisplay:
    """Use it as a context manager; the last picture stays when it is left."""

    def __init__(
        self,
        *,
        units: Mapping[str, float],
        slots: int,
        load_front: Callable[[], Mapping[str, Any] | None],
        is_compact: bool = False,
        console: Console | None = None,
    ) -> None:
        self._is_compact = is_compact
        self._units, self._slots, self._load_front = units, slots, load_front
        # Without a colour system rich writes no bold and no dim either, which NO_COLOR asks for here.
        self._console = console or Console(
            stderr=True, highlight=False, soft_wrap=False, color_system=None if is_plain() else "auto"
        )
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="ellipsis")
        self._marks = symbols(sys.stderr)
        self._began = time.monotonic()
        self._before: RunStatus | None = None
        self._front: Mapping[str, Any] | None = None
        self._now = datetime.now(UTC)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, status: RunStatus, attempts: Attempts, retry_at: Mapping[str, datetime], now: datetime) -> None:
        lines = transitions(self._before, status, attempts, retry_at=retry_at, now=now)
        for line in lines:
            if any(word in line for word in (" failed: ", " stalled: ", "(cached)")):
                self.say(line)
        if self._before is None or self._before.stages_succeeded != status.stages_succeeded:
            self._front = self._load_front()
        self._before = status
        self._now = now
        picture = self._picture(status, is_compact=self._is_compact)
        if len(picture) > self._console.height:
            picture = self._picture(status, is_compact=True)
        self._live.update(Group(*picture), refresh=True)

    def say(self, text: str) -> None:
        self._console.print(Text(spell(text, sys.stderr)), soft_wrap=True)

    def _picture(self, status: RunStatus, *, is_compact: bool) -> list[Text]:
        elapsed = duration_text(time.monotonic() - self._began)
        left = remaining(status, units=self._units, slots=self._slots)
        eta = f"  ETA {duration_text(left)}" if left else ""
        head = Text(
            f"{status.namespace}/{status.name}  {state_word(status)}  iteration {status.iteration}/{status.iterations}  "
            f"stages {status.stages_succeeded}/{status.stages_total}  {elapsed}{eta}",
            style="bold",
            no_wrap=True,
            overflow="ellipsis",
        )
        groups = list(picture_groups(status.stages))
        lines = [head]
        for number, (title, stages) in enumerate(groups, start=1):
            is_last = number == len(groups)
            lines += self._group(title, stages, is_last=is_last, is_compact=is_compact)
        return lines

    def _group(self, title: str, stages: Sequence[StageStatus], *, is_last: bool, is_compact: bool) -> Iterator[Text]:
        marks = self._marks
        branch = marks.last_branch if is_last else marks.branch
        stem = "  " if is_last else f"{marks.branch[0]} " if marks.branch[0] == "|" else "\u2502 "
        state = group_state(stages)
        summary = self._summary(stages, state)
        yield _line(branch, icon(state, marks), f"{title}{summary}", COLOURS.get(state, "dim"))
        if state in _DONE or state in _IDLE or len(stages) == 1:
            return
        rows = list(_rows(stages)) if is_compact else [[stage] for stage in stages]
        for number, row in enumerate(rows, start=1):
            inner = marks.last_branch if number == len(rows) else marks.branch
            shown = row[0].state
            text = self._stage_line(row[0]) if len(row) == 1 else _row_text(row)
            yield _line(f"{stem}{inner}", icon(shown, marks), text, COLOURS.get(shown, "dim"))

    def _summary(self, stages: Sequence[StageStatus], state: StageState) -> str:
        if len(stages) == 1:
            return self._stage_line(stages[0]).removeprefix(stage_name(stages[0]))
        if state is StageState.SUCCEEDED:
            return f"  done{self._best(stages[0].iteration)}"
        return f"  {state.lower()}" if state in _IDLE else ""

    def _stage_line(self, stage: StageStatus) -> str:
        return stage_line(stage, self._marks, self._now, has_bar=self._console.width >= NARROW)

    def _best(self, iteration: int) -> str:
        """The best point of a finished iteration within the KL budget, from the newest report."""
        front = self._front or {}
        own = [each for each in front.get("points", ()) if iteration and each.get("iteration") == iteration]
        try:
            chosen = best_entry({**front, "points": own}, max_kl=front.get("maxKl"))
        except (KeyError, TypeError):  # a view of another version: not worth a run
            return ""
        if chosen is None:
            return ""
        best = chosen.entry
        text = f"  best {best['label']}  KL {best['kl']['mean']:.3g}  reward {plus_minus(best['reward'])}"
        return spell(text, sys.stderr)


def _line(branch: str, mark: str, text: str, style: str) -> Text:
    line = Text(f"{branch}", no_wrap=True, overflow="ellipsis")
    line.append(f"{mark} ", style=style)
    line.append(text)
    return line


def _rows(stages: Sequence[StageStatus]) -> Iterator[list[StageStatus]]:
    """Neighbours that have the same to say, such as the finished members of an iteration, share a row."""

    def alike(stage: StageStatus) -> tuple[object, ...]:
        is_quiet = stage.state in _DONE or stage.state in _IDLE or stage.state is StageState.QUEUED
        return (stage.kind, stage.state) if is_quiet and stage.kind == StageKind.RL else (stage.id,)

    for _, row in groupby(stages, key=alike):
        yield list(row)


def _row_text(row: Sequence[StageStatus]) -> str:
    """rl 1..3  succeeded  1h02m: the longest of them, for they ran side by side."""
    seconds = [seconds_between(each.started_at, each.ended_at) for each in row]
    took = [duration_text(max(filter(None, seconds)))] if any(seconds) else []
    first, last = stage_name(row[0]), stage_name(row[-1]).rpartition(" ")[2]
    return "  ".join([f"{first}..{last}", str(row[0].state).lower(), *took])


def picture_groups(stages: Sequence[StageStatus]) -> Iterator[tuple[str, list[StageStatus]]]:
    """Imports, iterations, controls, report: a title and its stages each."""
    grouped: dict[str, list[StageStatus]] = {}
    for stage in stages:
        grouped.setdefault(group_title(stage), []).append(stage)
    order = sorted(grouped, key=lambda title: (title == "report", title.startswith("control")))
    for title in order:
        yield title, grouped[title]


def group_title(stage: StageStatus) -> str:
    """Which branch of the tree a stage belongs to; pending stages say it by their id alone."""
    parts = stage.id.split("/")
    match parts[0]:
        case "import":
            return "import"
        case "control":
            return f"control {parts[1]}"
        case "report":
            return "report"
        case _:
            return f"iteration {parts[1]}"


def group_state(stages: Sequence[StageStatus]) -> StageState:
    """The state that says most about a group."""
    states = {stage.state for stage in stages}
    for state in (StageState.STALLED, StageState.RETRYING, StageState.RUNNING, StageState.QUEUED):
        if state in states:
            return state
    if states <= set(_DONE):
        return StageState.SUCCEEDED
    return StageState.RUNNING if states & set(_DONE) else next(iter(states))


def stage_name(stage: StageStatus) -> str:
    """rl 2, merge, evaluate; imports by what they import."""
    parts = stage.id.split("/")
    match parts[0]:
        case "import":
            return " ".join(parts[1:])
        case "control":
            return parts[2]
        case "rl":
            return f"rl {parts[2]}"
        case _:
            return parts[0]


def stage_line(stage: StageStatus, marks: Symbols, now: datetime, *, has_bar: bool = True) -> str:
    """rl 2  running  ######------  step 12/40  reward 1.2  ETA 9.5 s."""
    parts = [stage_name(stage), str(stage.state).lower()]
    if stage.state is StageState.RUNNING:
        parts += [f"attempt {stage.attempts}"] if stage.attempts > 1 else []
        if stage.progress is not None and stage.progress.total > 0:
            parts += [bar(stage.progress.done / stage.progress.total, marks)] if has_bar else []
            parts.append(progress_text(stage.progress))
            left = remaining_seconds(stage.progress)
            parts += [f"ETA {duration_text(left)}"] if left else []
        elif (seconds := seconds_between(stage.started_at, now.isoformat())) is not None:
            parts.append(duration_text(seconds))
    elif stage.state is StageState.SUCCEEDED:
        took = time_text(stage)
        parts += [took] if took != "-" else []
    elif stage.state in (StageState.RETRYING, StageState.STALLED):
        parts.append(stage.message)
    return "  ".join(parts)
