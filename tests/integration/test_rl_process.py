"""The RL worker as a process of its own: stopped, killed, without its reward, on a full disk. It ends with the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.builders.rl_stage import rl_stage, training
from tests.servers.reward_endpoint import RewardEndpoint
from warpctl import artifacts
from warpctl.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_RETRYABLE
from warpctl.spec.models import HttpReward
from warpctl.spec.stage_input import ENVIRONMENT_VARIABLE, StageInput
from warpctl.spec.tracking import TrackerType, Tracking
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store
from warpctl.workers import resume_state
from warpctl.workers.tracking import curve_name

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

FAULTS = Path(__file__).parents[1] / "faults"
STEPS = 12
NUM_REQUESTS = STEPS + 4
"""One a step, and one for each evaluation: at step 0, 4, 8 and 12."""


@pytest.fixture
def endpoint() -> Iterator[RewardEndpoint]:
    server = RewardEndpoint()
    server.start()
    yield server
    server.stop()


@dataclass
class Worker:
    """`python -m warpctl.workers.rl` on one stage, attempt by attempt."""

    storage: Path
    endpoint: RewardEndpoint
    tracking: Tracking | None = None
    environment: dict[str, str] = field(default_factory=dict)
    num_attempts: int = 0

    def stage(self) -> StageInput:
        reward = HttpReward(type="Http", name="letters", url=self.endpoint.url, revision="1", timeout_seconds=30)
        settings = training(steps=STEPS, resumeState={"everySteps": 3}, evaluation={"everySteps": 4, "numPrompts": 3})
        stage = rl_stage(str(self.storage), settings=settings, rewards=[reward], attempt_id=str(self.num_attempts))
        return stage.model_copy(update={"task": stage.task.model_copy(update={"tracking": self.tracking})})

    def start(self) -> subprocess.Popen[bytes]:
        self.num_attempts += 1
        self.storage.mkdir(exist_ok=True)
        with (self.storage.parent / f"{self.storage.name}-{self.num_attempts}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "warpctl.workers.rl"],
                env=os.environ
                | {ENVIRONMENT_VARIABLE: self.stage().to_json(), "OMP_NUM_THREADS": "1"}
                | self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self) -> int:
        return self.start().wait(120)

    def log(self) -> str:
        return (self.storage.parent / f"{self.storage.name}-{self.num_attempts}.log").read_text()

    def resume_steps(self) -> list[int]:
        return [state.step for state in resume_state.find(Store.open(str(self.storage)), self.stage())]

    def artifact(self) -> Artifact:
        stage = self.stage()
        return Artifact.load(Store.open(str(self.storage)), stage.kind, stage.key)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker without a tracker that nobody disturbed; its log lists what it imported."""
    server = RewardEndpoint()
    server.start()
    folder = tmp_path_factory.mktemp("undisturbed")
    worker = Worker(folder / "store", server, environment={"PYTHONPROFILEIMPORTTIME": "1"})
    assert worker.run() == EXIT_DONE, worker.log()
    yield worker
    server.stop()


@pytest.fixture(scope="module")
def uninterrupted(undisturbed: Worker) -> Artifact:
    """What it published."""
    return undisturbed.artifact()


def test_no_trackers_library_is_imported_unless_it_is_asked_for(undisturbed: Worker) -> None:
    """TensorBoard is installed here; a worker that was not told of it does not load it."""
    lines = undisturbed.log().splitlines()
    imported = {line.rsplit("|", 1)[-1].strip() for line in lines if "import time:" in line}

    assert "accelerate" in imported
    assert not imported & {"tensorboard", "torch.utils.tensorboard", "wandb", "mlflow", "trackio"}
    assert undisturbed.endpoint.num_requests == NUM_REQUESTS


def assert_same_bits(artifact: Artifact, reference: Artifact) -> None:
    assert artifact.names() == reference.names()
    for name in reference.names():
        assert artifact.read(name) == reference.read(name), name
    assert artifact.manifest.content_digest == reference.manifest.content_digest


def strike(process: subprocess.Popen[bytes], number: signal.Signals, delay_seconds: float) -> None:
    """Send a signal a moment later, wherever the worker is by then."""
    threading.Timer(delay_seconds, lambda: process.send_signal(number)).start()


def test_sigterm_and_sigkill_at_random_moments_end_in_the_same_bits_and_one_curve(
    tmp_path: Path, endpoint: RewardEndpoint, uninterrupted: Artifact
) -> None:
    """Signals at moments from a seed, a kill between a resume state and its marker, then a last attempt.

    TensorBoard is told all the while: at the end it shows every step once, with the numbers of metrics.jsonl.
    """
    dice = random.Random(4)
    marker = r"stages/rl/.*/resume/0*6/committed\.json"
    kill = {"who": "worker", "operation": "write", "path": marker, "when": "before", "done": str(tmp_path / "killed")}
    worker = Worker(
        tmp_path / "store",
        endpoint,
        tracking=Tracking(type=TrackerType.TENSOR_BOARD, project="curves"),
        environment={"PYTHONPATH": str(FAULTS), "WARPCTL_TEST_KILLS": json.dumps([kill])},
    )

    codes: list[int] = []
    resumed: list[int] = []
    for number in (signal.SIGTERM, None, signal.SIGKILL):
        process = worker.start()
        if number is not None:
            # the fourth to sixth request of this attempt, and up to 30 ms after it has arrived
            due, delay = endpoint.num_requests + dice.randint(4, 6), dice.uniform(0, 0.03)
            endpoint.on_request = lambda count, due=due, delay=delay, number=number, process=process: (
                strike(process, number, delay) if count == due else None
            )
        codes.append(process.wait(120))
        endpoint.on_request = lambda _count: None
        resumed.append(max(worker.resume_steps(), default=0))
    assert worker.run() == EXIT_DONE, worker.log()

    assert codes == [EXIT_INTERRUPTED, -signal.SIGKILL, -signal.SIGKILL]
    assert Path(kill["done"]).exists()
    assert resumed == sorted(resumed)
    assert 0 < resumed[0] < resumed[-1] < STEPS
    assert f"step={resumed[-1]}" in worker.log()
    assert worker.resume_steps() == []
    assert_same_bits(worker.artifact(), uninterrupted)
    assert_one_curve(worker)


def assert_one_curve(worker: Worker) -> None:
    """Every step is in the event files' curves exactly once, and says what the store says."""
    stage = worker.stage()
    folder = worker.storage / artifacts.tensorboard(stage.namespace, stage.run) / "curves" / curve_name(stage)
    files = list(folder.glob("events.out.tfevents.*"))
    records = [json.loads(line) for line in worker.artifact().read("metrics.jsonl").decode().splitlines()]
    curves = EventAccumulator(str(folder))
    curves.Reload()

    assert len(files) > 2, "several attempts wrote here"
    shown = {"train/reward": "reward", "train/kl": "kl/anchor", "train/completions/mean_length": "length"}
    shown |= {"eval/reward": "evaluation/reward", "train/learning_rate": "learningRate"}
    for tag, name in shown.items():
        expected = {record["step"]: record[name] for record in records if name in record}
        points = curves.Scalars(tag)
        assert [point.step for point in points] == sorted(expected), tag
        assert [point.value for point in points] == pytest.approx(list(expected.values()), rel=1e-6), tag


def test_an_endpoint_that_is_away_for_a_while_is_waited_for(
    tmp_path: Path, endpoint: RewardEndpoint, uninterrupted: Artifact
) -> None:
    """It refuses connections for a second in the middle of the run, then listens again: no new attempt, the same bits."""
    worker = Worker(tmp_path / "store", endpoint)
    away = threading.Event()
    endpoint.on_request = lambda count: away.set() if count == 7 else None

    process = worker.start()
    assert away.wait(60)
    endpoint.stop()
    time.sleep(1)
    endpoint.start()

    assert process.wait(120) == EXIT_DONE, worker.log()
    assert "asking again" in worker.log()
    assert_same_bits(worker.artifact(), uninterrupted)


def test_a_disk_that_takes_no_more_while_saving_leaves_no_half_a_state(
    tmp_path: Path, endpoint: RewardEndpoint, uninterrupted: Artifact
) -> None:
    """The kernel refuses to let a file grow beyond the policy's size: the optimizer's state, twice as large, breaks off."""
    import resource

    worker = Worker(tmp_path / "store", endpoint)
    policy_bytes = len(uninterrupted.read("model.safetensors"))
    process = worker.start()
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (policy_bytes * 3 // 2, policy_bytes * 3 // 2))

    assert process.wait(120) == EXIT_RETRYABLE, worker.log()
    assert "optimizer.safetensors" in worker.log()
    assert worker.resume_steps() == []
    left = [path.name for path in worker.storage.glob("stages/rl/*/attempts/1/resume/*/*")]
    assert sorted(left) == ["anchor.safetensors", "policy.safetensors"]
