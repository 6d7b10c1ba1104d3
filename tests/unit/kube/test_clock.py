"""The API server's time, from answers that say whole seconds and came some time after they were stamped."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from warpctl.kube.clock import ServerClock

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


class Machine:
    """A monotonic clock, and a server whose true time is NOON + its reading + `ahead`."""

    def __init__(self) -> None:
        self.reading = 1000.0
        self.ahead = 0.0
        self.clock = ServerClock(lambda: self.reading)

    def true_time(self) -> float:
        return NOON.timestamp() + self.reading + self.ahead

    def ask(self, *, there: float = 0.0, back: float = 0.0) -> None:
        asked = self.reading
        self.reading += there
        stamp = format_datetime(datetime.fromtimestamp(int(self.true_time()), UTC), usegmt=True)
        self.reading += back
        self.clock.heard(stamp, asked)

    def error(self) -> float:
        return self.true_time() - self.clock.now().timestamp()


def test_before_any_answer_it_is_this_machines_clock() -> None:
    assert abs((ServerClock().now() - datetime.now(UTC)).total_seconds()) < 60


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_an_answer_without_a_date_changes_nothing(date: str | None) -> None:
    machine = Machine()
    machine.ask()
    before = machine.error()

    machine.clock.heard(date, machine.reading)

    assert machine.error() == before


def test_it_is_late_by_less_than_a_second_and_the_way_back_and_never_early() -> None:
    machine = Machine()
    machine.reading += 0.75
    machine.ask(there=0.1, back=0.25)

    assert machine.error() == pytest.approx(0.75 + 0.1 + 0.25)


def test_it_gets_better_with_answers_and_never_goes_back_for_a_slow_one() -> None:
    machine = Machine()
    machine.ask(back=20.0)
    assert machine.error() == pytest.approx(20.0)
    machine.reading += 0.1
    machine.ask()
    assert machine.error() == pytest.approx(0.1)

    machine.ask(there=10.0, back=10.0)

    assert machine.error() == pytest.approx(0.1)


def test_servers_that_differ_a_little_are_one_clock_that_goes_on() -> None:
    machine = Machine()
    machine.ask()
    machine.ahead = -4.0
    machine.ask()

    assert machine.error() == pytest.approx(-4.0)


@pytest.mark.parametrize("jump", [7200.0, -7200.0])
def test_a_server_whose_clock_is_set_is_followed(jump: float) -> None:
    machine = Machine()
    machine.ask()
    machine.ahead = jump
    machine.ask()

    assert machine.error() == pytest.approx(0.0)
