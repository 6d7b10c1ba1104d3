"""The loop of `warpctl run` against an engine and an executor that misbehave, and the question before work is lost."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from tests.unit.cli.conftest import Place
from warpctl.cli.run_loop import RunLoop
from warpctl.errors import Interrupted, StoreDeniedError, StoreUnavailableError
from warpctl.plan.observed import Attempt, AttemptState
from warpctl.spec.status import SUCCEEDED, Condition, ConditionStatus, RunStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def succeeded() -> RunStatus:
    condition = Condition(type=SUCCEEDED, status=ConditionStatus.TRUE, reason="", message="")
    return RunStatus(
        namespace="ml",
        name="demo",
        conditions=(condition,),
        stages=(),
        iteration=1,
        iterations=1,
        stages_succeeded=0,
        stages_total=0,
    ).model_copy(
        update={
            "conditions": tuple(
                condition if kind == SUCCEEDED else condition.model_copy(update={"type": kind, "status": "False"})
                for kind in ("Ready", "Reconciling", "Stalled", "Suspended", SUCCEEDED)
            )
        }
    )


@dataclass
class FakeEngine:
    """Answers each tick with the next of `answers`."""

    answers: list[RunStatus | Exception]
    retry_since: datetime | None = None

    def tick(self, _now: datetime) -> RunStatus:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def run(self):
        class Spec:
            class spec:  # noqa: N801
                retry = None

        return Spec

    @property
    def store(self):
        class Local:
            @staticmethod
            def local_path(path: str) -> str:
                return path

        return Local

    def observe(self):
        raise StoreUnavailableError("gone")


@dataclass
class FakeExecutor:
    """One worker that leaves when it is asked to."""

    is_active: bool = False
    grace_seconds: float = 60.0
    stopped: list[str] = field(default_factory=list)
    killed: int = 0

    def kill(self, _attempt: Attempt) -> None:
        self.killed += 1
        self.is_active = False

    def attempts(self):
        state = AttemptState.ACTIVE if self.is_active else AttemptState.FAILED
        return {"k": (Attempt("k", 1, "1-x", state, NOW, exit_code=44),)}

    def stop(self, _attempt: Attempt, reason: str) -> None:
        self.stopped.append(reason)
        self.is_active = False


@dataclass
class FakeSignals:
    count: int = 0
    waited: list[float] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)


@dataclass
class FakeDisplay:
    said: list[str] = field(default_factory=list)
    shown: int = 0

    def show(self, *_facts: object) -> None:
        self.shown += 1

    def say(self, text: str) -> None:
        self.said.append(text)


def a_loop(*answers: RunStatus | Exception, is_active: bool = False) -> RunLoop:
    return RunLoop(FakeEngine([*answers]), FakeExecutor(is_active), FakeDisplay(), FakeSignals(), lambda: NOW)


def test_a_store_that_does_not_answer_is_asked_again_more_and_more_patiently() -> None:
    gone = StoreUnavailableError("no answer from gs://x")
    loop = a_loop(*[gone] * 7, succeeded())

    assert loop.drive().is_true(SUCCEEDED)
    assert loop.signals.waited == [1, 2, 4, 8, 16, 30, 30]
    assert loop.display.said[0] == (
        "the store does not answer (no answer from gs://x); workers go on, next look in 1 s"
    )


def test_a_final_error_stops_the_workers_before_it_is_raised() -> None:
    loop = a_loop(StoreDeniedError("no permission"), is_active=True)

    with pytest.raises(StoreDeniedError):
        loop.drive()
    assert loop.executor.stopped == ["the run failed"]


def test_a_request_to_stop_is_obeyed_although_the_store_is_gone() -> None:
    loop = a_loop(succeeded(), is_active=True)
    loop.signals.count = 1

    with pytest.raises(Interrupted, match="interrupted: all workers saved and left"):
        loop.drive()
    assert loop.executor.stopped == ["interrupted by the user"]
    assert loop.display.shown == 0


def test_a_second_request_that_came_before_the_first_was_seen_kills() -> None:
    loop = a_loop(succeeded(), is_active=True)
    loop.signals.count = 2

    with pytest.raises(Interrupted):
        loop.drive()
    assert loop.executor.killed == 1
    assert loop.executor.stopped == []


def test_success_waits_for_workers_that_are_still_leaving() -> None:
    loop = a_loop(succeeded(), succeeded(), is_active=True)
    loop.signals.wait = lambda _seconds: setattr(loop.executor, "is_active", False)

    loop.drive()

    assert loop.display.shown == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("\n", 1), ("y\n", 0)])
def test_a_terminal_is_asked_before_finished_stages_are_made_anew(
    copied: Place, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    from warpctl.cli.run_reference import resolve
    from warpctl.cli.spec_changes import confirm_changes
    from warpctl.errors import WarpctlError

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    copied.write_spec(merge={"litiRate": "0.5"})
    reference = resolve(str(copied.folder / "demo.yaml"), str(copied.folder / "state"))
    refusals = []
    try:
        confirm_changes(reference, is_sure=False)
    except WarpctlError as error:
        refusals.append(error)

    assert len(refusals) == code
    assert "Go on? [y/N]" in terminal.getvalue()
    terminal.truncate(0)
    confirm_changes(reference, is_sure=True)
    assert "Go on?" not in terminal.getvalue()
