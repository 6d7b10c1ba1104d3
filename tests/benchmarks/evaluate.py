"""What evaluating 24 points of 256 completions costs: python -m tests.benchmarks.evaluate --laboratory FOLDER [--profile].

It is the evaluate worker's own `main`, with a real Context on a folder store, at the scale of specs/tiny-cpu.yaml: the policy,
reward model, ground truth and prompts of the tiny laboratory. The policies are SFT moved by seeded noise: no RL run is
needed, and completions are about as long as SFT's. CPU seconds of this process, a table, and last a line of JSON.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import structlog
from safetensors.numpy import load, save

from tests.benchmarks.case import GROUND_TRUTH
from tests.builders.checkpoints import publish
from warpctl import artifacts
from warpctl.reports.evaluation import POINTS_FILE, EvaluatedPoint, read_names
from warpctl.spec.models import CheckpointReward, FunctionReward, HeldOutSplit, Prompts
from warpctl.spec.stage_input import EvaluateTask, InputArtifact, PointTask, StageInput, StageKind
from warpctl.spec.training import Training
from warpctl.storage.artifact import Artifact
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.workers.evaluate import main as evaluate_main
from warpctl.workers.harness import Context

NUM_PROMPTS = 256
SOURCES = {"member/1": ("1",), "member/2": ("1",)} | {
    f"member/{number}": ("0.15", "0.3", "0.5", "0.75", "1", "1.25", "1.5") for number in (3, 4, 5)
}
"""Rates of each source; with SFT they are 24 points."""
NOISE = 0.5
"""Standard deviation of the noise, in those of each tensor: some nats of KL at rate 1."""


@dataclass
class ListeningContext(Context):
    """Notes the process's CPU seconds whenever a point is done."""

    marks: list[float] = field(default_factory=list)

    def report_progress(self, done: int, total: int, unit: str, **fields: float | str) -> None:
        super().report_progress(done, total, unit, **fields)
        self.marks.append(time.process_time())


def moved(weights: bytes, seed: int) -> bytes:
    """A safetensors file with every tensor moved by noise."""
    generator = np.random.default_rng(seed)
    return save(
        {
            name: (value + NOISE * value.std() * generator.standard_normal(value.shape)).astype(np.float32)
            for name, value in sorted(load(weights).items())
        }
    )


def context_of(laboratory: Path, storage: str) -> ListeningContext:
    """What the harness would give the worker, its inputs imported."""
    store = Store.open(storage)
    sft = {path.name: path.read_bytes() for path in sorted((laboratory / "sft").iterdir())}
    reward = {path.name: path.read_bytes() for path in sorted((laboratory / "reward").iterdir())}
    prompts = laboratory / "prompts" / "prompts.jsonl"
    sources: list[InputArtifact] = []
    for number, role in enumerate(SOURCES, start=1):
        files = sft | {"model.safetensors": moved(sft["model.safetensors"], number)}
        sources.append(publish(store, files, key=f"{number}" * 64, role=role))
    training = {"steps": [1], "sampling": {"temperature": "0.9", "maxNewTokens": 32}}
    stage = StageInput(
        stage_id="evaluate/1",
        kind=StageKind.EVALUATE,
        key="e" * 64,
        attempt_id="1",
        namespace="default",
        run="benchmark",
        storage=storage,
        inputs=(
            publish(store, sft, key="a" * 64, role="sft"),
            publish(store, reward, key="b" * 64, role="reward/learned"),
            publish(store, {prompts.name: prompts.read_bytes()}, key="c" * 64, role="prompts"),
            *sources,
        ),
        task=EvaluateTask(
            algorithm_version="1",
            iteration=1,
            points=(
                PointTask(name="sft", source=""),
                *(
                    PointTask(name=f"{role}@{rate}", source=role, liti_rate=Decimal(rate))
                    for role, rates in SOURCES.items()
                    for rate in rates
                ),
            ),
            seed=0,
            num_prompts=NUM_PROMPTS,
            num_generations=1,
            training=Training.model_validate(training),
            prompts=Prompts(
                uri=str(prompts),
                evaluation_split=HeldOutSplit(type="HeldOut", count=NUM_PROMPTS),
                max_prompt_tokens=32,
            ),
            rewards=(CheckpointReward(type="Checkpoint", name="learned", uri="reward"),),
            held_out_rewards=(FunctionReward(type="Function", name="truth", function=GROUND_TRUTH, revision="1"),),
        ),
    )
    publication = Publication(store, stage, now=lambda: datetime.now(UTC))
    return ListeningContext(stage, store, publication, structlog.get_logger())


def points_of(context: Context) -> list[tuple[str, EvaluatedPoint]]:
    stage = context.stage_input
    names = read_names(Artifact.load(context.store, stage.kind, stage.key).read(POINTS_FILE))
    return [
        (each.name, EvaluatedPoint.from_bytes(context.store.read(artifacts.point(each.point_key)))) for each in names
    ]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--laboratory", type=Path, required=True, help="what `python -m warpctl.tiny` made")
    parser.add_argument("--profile", action="store_true", help="print where the worker's time goes")
    options = parser.parse_args(arguments)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with tempfile.TemporaryDirectory() as folder:
        context = context_of(options.laboratory, folder)
        profile = cProfile.Profile()
        start = time.process_time()
        if options.profile:
            profile.runcall(evaluate_main, context)
        else:
            evaluate_main(context)
        total = time.process_time() - start
        if options.profile:
            pstats.Stats(profile).sort_stats("cumtime").print_stats(
                r"warpctl|gemma|modeling_l|sdpa|_tokenizer|encode|batch_decode|decode"
            )
        # the first mark says how many are cached; the first point holds the start: torch, models, prompts
        seconds = [
            after - before for before, after in zip([start, *context.marks[1:]], context.marks[1:], strict=False)
        ]
        print(f"{'POINT':<16}{'CPU S':>8}{'KL':>8}{'LENGTH':>8}")
        for (name, point), spent in zip(points_of(context), seconds, strict=True):
            kl, length = (sum(values) / len(values) for values in (point.kl_rb, point.lengths))
            print(f"{name:<16}{spent:>8.3f}{kl:>8.2f}{length:>8.1f}")
        rest = seconds[1:]
        each = sum(rest) / len(rest)
        print(f"start {seconds[0] - each:.1f} cpu-s, then {each:.3f} a point; {total:.1f} in all")
        print(
            json.dumps(
                {
                    "cpu_s_24_points_of_256": round(total, 2),
                    "cpu_s_start": round(seconds[0] - each, 2),
                    "cpu_s_a_point": round(each, 4),
                }
            )
        )


if __name__ == "__main__":
    main(sys.argv[1:])
