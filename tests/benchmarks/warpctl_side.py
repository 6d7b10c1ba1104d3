"""warpctl's RL worker on one case: python -m tests.benchmarks.warpctl_side CASE_AS_JSON.

It is the worker's own `main`, with a real Context on a folder store; only its report of progress, which comes at the end
of every step, is listened to. Resume states and trajectory evaluation are off, as saving and evaluation are for TRL.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import structlog

from tests.benchmarks.blocks import Blocks
from tests.benchmarks.case import (
    BETAS,
    EMA_RATE,
    GROUND_TRUTH,
    KL_COEFFICIENT,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    NUM_GENERATIONS,
    TEMPERATURE,
    WARM_UP_STEPS,
    Case,
)
from tests.builders.checkpoints import publish
from warpctl import artifacts
from warpctl.spec.models import FunctionReward, HeldOutSplit, Prompts
from warpctl.spec.stage_input import RlTask, StageInput, StageKind
from warpctl.spec.training import Training
from warpctl.storage.artifact import Artifact
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.workers.harness import Context
from warpctl.workers.rl import main as rl_main


@dataclass
class ListeningContext(Context):
    """Passes every step's end on to `blocks`."""

    blocks: Blocks | None = None

    def report_progress(self, done: int, total: int, unit: str, **fields: float | str) -> None:
        super().report_progress(done, total, unit, **fields)
        if self.blocks is not None:
            self.blocks.step_ended()


def training_of(case: Case) -> Training:
    """The case in the spec's words."""
    values = {
        "steps": [case.steps],
        "emaRate": EMA_RATE,
        "klCoefficient": KL_COEFFICIENT,
        "baseline": "LeaveOneOut",
        "batchSize": case.batch,
        "numGenerations": NUM_GENERATIONS,
        "optimizer": {
            "learningRate": LEARNING_RATE,
            "warmupSteps": WARM_UP_STEPS,
            "beta1": BETAS[0],
            "beta2": BETAS[1],
            "maxGradNorm": MAX_GRAD_NORM,
        },
        "sampling": {"temperature": TEMPERATURE, "maxNewTokens": case.tokens},
        "maxKl": "Unlimited",
        "resumeState": {"everySteps": 1_000_000},
        "evaluation": {"numPrompts": 0},
    }
    return Training.model_validate(values)


def context_of(case: Case, storage: str, blocks: Blocks | None = None) -> Context:
    """What the harness would give the worker, its inputs imported."""
    store, policy, prompts = Store.open(storage), Path(case.policy), Path(case.prompts)
    files = {path.name: path.read_bytes() for path in sorted(policy.iterdir())}
    stage = StageInput(
        stage_id="rl/1/1",
        kind=StageKind.RL,
        key="2" * 64,
        attempt_id="1",
        namespace="default",
        run="benchmark",
        storage=storage,
        inputs=(
            publish(store, files, key="a" * 64, role="sft"),
            publish(store, files, key="b" * 64, role="init"),
            publish(store, {prompts.name: prompts.read_bytes()}, key="c" * 64, role="prompts"),
        ),
        task=RlTask(
            algorithm_version="1",
            seed=7,
            iteration=1,
            member=1,
            steps=case.steps,
            training=training_of(case),
            prompts=Prompts(
                uri=str(prompts), evaluation_split=HeldOutSplit(type="HeldOut", count=64), max_prompt_tokens=32
            ),
            rewards=(FunctionReward(type="Function", name="truth", function=GROUND_TRUTH, revision="1"),),
        ),
    )
    publication = Publication(store, stage, now=lambda: datetime.now(UTC))
    return ListeningContext(stage, store, publication, structlog.get_logger(), blocks=blocks)


def phases(context: Context, *, skipped: int) -> dict[str, float]:
    """Median seconds a step of each phase, from the worker's own stream of timings."""
    stage = context.stage_input
    folder = artifacts.timings(stage.kind, stage.key, stage.attempt_id, 0).rpartition("/")[0]
    lines = [line for file in context.store.list(folder) for line in context.store.read(file.path).splitlines()]
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    steady = [record for record in records if record["step"] > skipped]
    names = ("generateSeconds", "scoreSeconds", "updateSeconds")
    return {name: median(record[name] for record in steady) for name in names}


def main(case: Case) -> None:
    blocks = Blocks(case.block_steps, case.num_blocks)
    with tempfile.TemporaryDirectory() as folder:
        context = context_of(case, folder, blocks)
        rl_main(context)
        stage = context.stage_input
        artifact = Artifact.load(context.store, stage.kind, stage.key)
        steps = [json.loads(line) for line in artifact.read("metrics.jsonl").decode().splitlines()]
        blocks.answer(
            {
                "versions": {name: version(name) for name in ("torch", "transformers")},
                "lengths": sorted({step["length"] for step in steps}),
                "anchorMoved": steps[-1]["kl/anchor"] != 0,
                **phases(context, skipped=case.block_steps if case.num_blocks > 1 else 0),
            }
        )


if __name__ == "__main__":
    main(Case.from_json(sys.argv[1]))
