"""The local executor with real processes: they are started, seen, stopped, adopted, and never counted twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.builders.world import a_run
from warpctl.errors import UserError
from warpctl.executors import local
from warpctl.executors.local import LocalExecutor
from warpctl.executors.places import Machine
from warpctl.plan.actions import Start
from warpctl.plan.observed import Attempt, AttemptState, FailureClass
from warpctl.plan.stages import Stage
from warpctl.spec.stage_input import ImportTask, StageInput, StageKind
from warpctl.storage.store import Store

WORKERS = {
    "devices": "import os, time; time.sleep(0.5); print(f\"[{os.environ['CUDA_VISIBLE_DEVICES']}]\")",
    "echoes": "import os; print(os.environ['WARPCTL_STAGE_INPUT'])",
    "quick": "print('hello from the worker')",
    "fails": "import sys; print('the reason', file=sys.stderr); sys.exit(1)",
    "final": """
        import sys
        from warpctl.telemetry.log import logger
        log = logger(sys.stderr, stage="import/k")
        log.info("started")
        log.error("InputError", error="/x does not exist", hint="create it")
        log.warning("log not stored", error="disk full")
        sys.exit(42)
    """,
    "raises": """
        import sys
        from warpctl.telemetry.log import logger
        log = logger(sys.stderr, stage="import/k")
        try:
            raise ValueError("a tokenizer is missing")
        except ValueError:
            log.exception("failed")
        sys.exit(43)
    """,
    "silent": """
        import sys
        from warpctl.telemetry.log import logger
        logger(sys.stderr, stage="rl/1/1").info("prompts", training=992)
        sys.exit(3)
    """,
    "sleeps": "import time; time.sleep(60)",
    "saves": """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(44))
        time.sleep(60)
    """,
    "stubborn": """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    """,
    "shows": "import os; print({name: os.environ.get(name) for name in ('HF_TOKEN', 'OMP_NUM_THREADS', 'COLOUR')})",
    "node": "import os; print(os.environ['PET_NODE_RANK'], os.environ['PET_NNODES'])",
}


@pytest.fixture(autouse=True)
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Worker modules on PYTHONPATH."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, text in WORKERS.items():
        (folder / f"worker_{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> object:
    def choose(name: str) -> None:
        monkeypatch.setattr(local, "WORKERS", dict.fromkeys(StageKind, f"worker_{name}"))

    return choose


def an_executor(tmp_path: Path, *, cores: int = 2, grace_seconds: float = 60, **spec: object) -> LocalExecutor:
    return LocalExecutor(
        run=a_run(**spec),
        store=Store.open(str(tmp_path / "store")),
        folder=tmp_path / "state",
        machine=Machine(cores=cores),
        environment=dict(os.environ),
        grace_seconds=grace_seconds,
    )


def a_start(key: str = "k", number: int = 1, kind: StageKind = StageKind.IMPORT) -> Start:
    task = ImportTask(what="Model", uri="/x", revision="main")
    return Start(Stage(id=f"import/{key}", kind=kind, key=key, task=task), number, (), task)


def wait_for(executor: LocalExecutor, state: AttemptState, key: str = "k") -> Attempt:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        attempt = executor.attempts()[key][-1]
        if attempt.state is state:
            return attempt
        time.sleep(0.02)
    raise AssertionError(f"not {state}: {attempt}")


def wait_for_pid(executor: LocalExecutor, key: str = "k", number: int = 1) -> int:
    path = executor.folder / "attempts" / key / f"{number:04d}" / "pid"
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())


def test_a_worker_runs_and_leaves_its_log_and_exit_code(tmp_path: Path, use) -> None:
    use("quick")
    executor = an_executor(tmp_path)

    assert executor.start(a_start())
    attempt = wait_for(executor, AttemptState.COMPLETE)

    assert attempt.exit_code == 0
    assert "hello from the worker" in executor.log_file(attempt).read_text()


@pytest.mark.parametrize(
    ("worker", "failure", "message"),
    [
        ("fails", FailureClass.APPLICATION, "exit code 1: the reason"),
        ("final", FailureClass.FINAL, "exit code 42: /x does not exist (hint: create it)"),
        ("raises", FailureClass.APPLICATION, "exit code 43: ValueError: a tokenizer is missing"),
        ("silent", FailureClass.APPLICATION, "exit code 3: it said nothing of an error"),
    ],
)
def test_a_failure_has_a_class_and_its_reason_in_the_workers_words(
    tmp_path: Path, use, worker: str, failure: str, message: str
) -> None:
    use(worker)
    executor = an_executor(tmp_path)
    executor.start(a_start())

    attempt = wait_for(executor, AttemptState.FAILED)

    assert attempt.failure is failure
    assert attempt.message == message


def test_kill_9_of_the_worker_is_an_infrastructure_failure(tmp_path: Path, use) -> None:
    use("sleeps")
    executor = an_executor(tmp_path)
    executor.start(a_start())
    group = wait_for_pid(executor)

    os.killpg(group, signal.SIGKILL)

    assert wait_for(executor, AttemptState.FAILED).failure is FailureClass.INFRASTRUCTURE


def test_stop_lets_the_worker_save_and_counts_toward_nothing(tmp_path: Path, use) -> None:
    use("saves")
    executor = an_executor(tmp_path)
    executor.start(a_start())
    wait_for_pid(executor)
    time.sleep(0.3)

    executor.stop(executor.attempts()["k"][-1], "test")
    stopping = executor.attempts()["k"][-1]
    attempt = wait_for(executor, AttemptState.FAILED)

    assert stopping.is_stopping
    assert attempt.failure is FailureClass.INTERRUPTED


def test_a_stubborn_worker_is_killed_when_its_grace_is_over(tmp_path: Path, use) -> None:
    use("stubborn")
    executor = an_executor(tmp_path, grace_seconds=0.2)
    executor.start(a_start())
    wait_for_pid(executor)
    time.sleep(0.5)
    executor.stop(executor.attempts()["k"][-1], "test")
    assert executor.attempts()["k"][-1].state is AttemptState.ACTIVE
    time.sleep(0.3)
    executor.stop(executor.attempts()["k"][-1], "test")

    assert wait_for(executor, AttemptState.FAILED).failure is FailureClass.INTERRUPTED


def test_a_worker_outlives_a_killed_engine_and_is_adopted_by_the_next(tmp_path: Path, use) -> None:
    """Whether it lives is asked of the lock that it inherited: no pid is trusted, no second one is started."""
    use("sleeps")
    program = textwrap.dedent(
        f"""
        import sys, os, signal
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[3])!r}]
        from pathlib import Path
        import test_local as t
        from warpctl.executors import local
        local.WORKERS = dict.fromkeys(t.StageKind, "worker_sleeps")
        executor = t.an_executor(Path({str(tmp_path)!r}))
        executor.start(t.a_start())
        t.wait_for_pid(executor)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    engine = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    next_engine = an_executor(tmp_path, cores=1)

    adopted = next_engine.attempts()["k"][-1]
    started = next_engine.start(a_start("other"))
    os.killpg(wait_for_pid(next_engine), signal.SIGKILL)

    assert engine.returncode == -signal.SIGKILL
    assert adopted.state is AttemptState.ACTIVE
    assert not started  # its core is taken
    assert wait_for(next_engine, AttemptState.FAILED).failure is FailureClass.INFRASTRUCTURE


def test_an_engine_killed_before_the_process_began_leaves_a_vanished_attempt(tmp_path: Path) -> None:
    executor = an_executor(tmp_path)
    folder = tmp_path / "state" / "attempts" / "k" / "0001"
    folder.mkdir(parents=True)
    local._write(
        folder / "attempt.json",
        {"kind": "import", "number": 1, "attemptId": "1-x", "startedAt": datetime.now(UTC).isoformat(), "gpus": []},
    )

    attempt = executor.attempts()["k"][-1]

    assert attempt.state is AttemptState.FAILED
    assert attempt.failure is FailureClass.INFRASTRUCTURE


def test_places_are_bounded_by_cores(tmp_path: Path, use) -> None:
    use("sleeps")
    executor = an_executor(tmp_path, cores=2)

    started = [executor.start(a_start(key)) for key in ("a", "b", "c")]
    for key in ("a", "b"):
        os.killpg(wait_for_pid(executor, key), signal.SIGKILL)
        wait_for(executor, AttemptState.FAILED, key)

    assert started == [True, True, False]


def test_more_gpus_than_the_machine_has_is_said_at_once(tmp_path: Path) -> None:
    executor = an_executor(tmp_path, compute={"import": {"gpus": 1}})

    with pytest.raises(UserError, match=r"spec.compute.import.gpus asks for 1 GPUs, this machine has 0"):
        executor.start(a_start())


def test_only_imports_see_a_hub_token_and_env_reaches_the_worker(
    tmp_path: Path, use, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("shows")
    monkeypatch.setenv("HF_TOKEN", "secret")
    colour = {"podTemplate": {"env": [{"name": "COLOUR", "value": "red"}]}}
    executor = an_executor(tmp_path, compute={"merge": colour})

    executor.start(a_start("a"))
    executor.start(a_start("b", kind=StageKind.MERGE))
    logs = {key: executor.log_file(wait_for(executor, AttemptState.COMPLETE, key)).read_text() for key in "ab"}

    assert "'HF_TOKEN': 'secret', 'OMP_NUM_THREADS': '1', 'COLOUR': None" in logs["a"]
    assert "'HF_TOKEN': None, 'OMP_NUM_THREADS': '1', 'COLOUR': 'red'" in logs["b"]


def test_a_worker_is_no_node_of_what_we_ourselves_run_under(
    tmp_path: Path, use, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("node")
    monkeypatch.setenv("PET_NODE_RANK", "2")
    monkeypatch.setenv("PET_NNODES", "4")
    executor = an_executor(tmp_path)

    executor.start(a_start())
    log = executor.log_file(wait_for(executor, AttemptState.COMPLETE)).read_text()

    assert log.split() == ["0", "1"]


def test_each_worker_sees_the_gpus_that_it_was_given_and_no_others(tmp_path: Path, use) -> None:
    use("devices")
    executor = an_executor(tmp_path, cores=4, compute={"merge": {"gpus": 2}, "import": {"gpus": 1}})
    executor.machine = Machine(cores=4, gpus=("4", "5", "6"))

    executor.start(a_start("a", kind=StageKind.MERGE))
    executor.start(a_start("b"))
    executor.start(a_start("c", kind=StageKind.REPORT))
    logs = {key: executor.log_file(wait_for(executor, AttemptState.COMPLETE, key)).read_text() for key in "abc"}

    assert logs == {"a": "[4,5]\n", "b": "[6]\n", "c": "[]\n"}


def test_a_record_that_was_left_damaged_is_no_attempt(tmp_path: Path) -> None:
    """A machine that goes down may leave an empty file: it must not make the run unusable."""
    executor = an_executor(tmp_path)
    folder = tmp_path / "state" / "attempts" / "k" / "0001"
    folder.mkdir(parents=True)
    (folder / "attempt.json").write_text("")

    assert executor.attempts() == {}


def test_the_stage_input_names_the_stores_root(tmp_path: Path, use) -> None:
    use("echoes")
    executor = an_executor(tmp_path)

    executor.start(a_start())
    log = executor.log_file(wait_for(executor, AttemptState.COMPLETE)).read_text()

    assert StageInput.from_environment({"WARPCTL_STAGE_INPUT": log}).storage == executor.store.root
