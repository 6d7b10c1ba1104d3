"""How far a merge is, by a clock that the tests turn."""

from __future__ import annotations

import pytest

from warpctl.cli.merge_progress import SECONDS_BETWEEN_LINES, MergeProgress


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> MergeProgress:
    made = MergeProgress(now=clock)
    made.on_bytes(700_000_000)  # headers, of very many tensors
    made.start(10_000_000_000)
    made.on_group(11, 30)
    return made


def test_speed_and_time_left_follow_from_the_bytes(progress: MergeProgress, clock: Clock) -> None:
    clock.seconds += 5
    progress.on_bytes(2_500_000_000)

    assert progress.line(80) == "merging  group 12/30  25%  2.5 GB of 10.0 GB  500.0 MB/s  ETA 15.0 s"


def test_before_the_first_group_no_speed_is_told(clock: Clock) -> None:
    starting = MergeProgress(now=clock)
    starting.start(10_000_000_000)
    clock.seconds += 2
    starting.on_bytes(14)

    assert starting.line(80) == starting.line(120) == "merging  starting"


def test_a_wide_terminal_gets_a_bar_and_the_line_fits(progress: MergeProgress, clock: Clock) -> None:
    clock.seconds += 5000
    progress.on_bytes(2_500_000_000)

    assert progress.line(120).split("  ")[2] in ("###---------", "\u2501" * 3 + "\u2500" * 9)
    assert len(progress.line(90)) <= 90


def test_joined_reads_never_make_it_more_than_all(progress: MergeProgress, clock: Clock) -> None:
    clock.seconds += 10
    progress.on_bytes(11_000_000_000)

    assert progress.line(80) == "merging  group 12/30  100%  10.0 GB of 10.0 GB  1.1 GB/s"


def test_without_a_terminal_there_is_a_line_now_and_then(
    progress: MergeProgress, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress:
        for _ in range(25):
            clock.seconds += SECONDS_BETWEEN_LINES / 10
            progress.on_bytes(100_000_000)

    assert [line.split("  ")[2] for line in capsys.readouterr().err.splitlines()] == ["10%", "20%"]
