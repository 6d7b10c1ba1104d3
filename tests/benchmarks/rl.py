"""make bench-rl: a step of warpctl's RL worker against a step of TRL's RLOOTrainer, in the same run, turn by turn.

    python -m tests.benchmarks.rl --laboratory FOLDER --trl PYTHON     (PYTHON: of the environment that has TRL)

For each batch size both are started, warm up in a first block of steps, and then run blocks in turns: A B A B. What is
printed are medians over blocks, the range over pairs of neighbouring blocks, and, last, one JSON line.
Plain Python: what is measured runs in processes of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.blocks import GO
from tests.benchmarks.case import Case
from tests.benchmarks.never_ending import make_never_ending

TOP = Path(__file__).parents[2]
OURS, TRL = "warpctl", "TRL"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
PHASES = ("generateSeconds", "scoreSeconds", "updateSeconds")


@dataclass
class Side:
    """One process and what it answered."""

    name: str
    process: subprocess.Popen[str]
    case: Case
    blocks: list[dict[str, float]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"error: {self.name} ended with {self.process.wait()} at batch {self.case.batch}")
        body: dict[str, Any] = json.loads(line)
        return body

    def run_block(self) -> None:
        """Let it run one more block, and wait for its end."""
        assert self.process.stdin is not None
        self.process.stdin.write(GO)
        self.process.stdin.flush()
        self.blocks.append(self.answer())

    def rates(self, clock: str = "seconds") -> list[float]:
        """Completions a second of each block."""
        return [self.case.batch * self.case.block_steps / block[clock] for block in self.blocks]

    @property
    def rate(self) -> float:
        return median(self.rates())

    @property
    def peak_mib(self) -> float:
        return max(block["peakBytes"] for block in self.blocks) / 2**20

    def phases(self) -> list[float]:
        """Median milliseconds a step: generate, score, update."""
        return [1000 * self.facts[phase] for phase in PHASES]


def start(name: str, python: str, module: str, arguments: Sequence[str], case: Case) -> Side:
    """Start one side; its log goes to our standard error."""
    process = subprocess.Popen(
        [python, "-W", "ignore", "-m", f"tests.benchmarks.{module}", case.to_json(), *arguments],
        cwd=TOP,
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Side(name, process, case)


def side_by_side(case: Case, trl_python: str | None) -> list[Side]:
    """Both sides on one case, in turns."""
    programs = [(OURS, sys.executable, "warpctl_side"), *([(TRL, trl_python, "trl_side")] if trl_python else [])]
    sides = []
    for name, python, module in programs:
        side = start(name, python, module, [], case)
        sides.append(side)
        side.answer()  # the warm-up, before the next one starts
    for _ in range(case.num_blocks - 1):
        for side in sides:
            side.run_block()
    for side in sides:
        side.facts = side.answer()
        side.process.wait()
        if side.facts["lengths"] != [case.tokens]:
            raise SystemExit(f"error: {side.name} made completions of {side.facts['lengths']} tokens")
        if not side.facts["anchorMoved"]:
            raise SystemExit(f"error: {side.name} does not move its anchor")
    return sides


def import_floor_mib() -> float:
    """Peak memory of a process that imports torch and the model's class and does nothing: both sides stand on it."""
    code = (
        "import torch; from transformers import GemmaForCausalLM; "
        "from tests.benchmarks.blocks import peak_memory_bytes; print(peak_memory_bytes())"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, cwd=TOP, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.splitlines()[-1]) / 2**20


def costs_of(case: Case, with_ends: Path, batches: Sequence[int]) -> dict[str, Any]:
    """The pieces, measured in a process of ours."""
    side = start("costs", sys.executable, "costs", [str(with_ends), *map(str, batches)], case)
    answer = side.answer()
    side.process.wait()
    return answer


def print_case(sides: Sequence[Side]) -> None:
    for side in sides:
        phases = " / ".join(f"{value:.1f}" for value in side.phases())
        print(
            f"  batch {side.case.batch:>3}  {side.name:<8} {side.rate:8.1f}/s   {phases:<22} {side.peak_mib:6.0f} MiB"
        )
    if len(sides) == 2:
        low, high = spread(sides)
        pairs = f"pairs of blocks {low:.2f} ... {high:.2f}; best blocks {best_ratio(sides):.2f}; by cpu-seconds {cpu_ratio(sides):.2f}"
        print(f"  {'':<18} ratio {ratio(sides):8.2f}     ({pairs})   memory {memory_ratio(sides):.2f}", flush=True)


def print_costs(costs: dict[str, Any], step: float, batch: int) -> None:
    for key, title in (("equal", "completions of equal length"), ("own", "completions with ends of their own")):
        print(f"\nSampler against transformers.generate, completions/s, {title}")
        for row in costs[key]:
            quotient = row["sampler"] / row["generate"]
            print(f"  batch {row['batch']:>3}  {row['sampler']:8.1f}  {row['generate']:8.1f}   {quotient:.2f}")
    print(f"\nPieces, ms and share of a step of batch {batch}")
    for name, key in (
        ("EMA update", "emaSeconds"),
        ("trajectory evaluation, 64 prompts", "evaluationSeconds"),
        ("resume state", "resumeStateSeconds"),
    ):
        print(f"  {name:<36}{1000 * costs[key]:8.2f} ms  {costs[key] / step:8.1%}")


def ratio(sides: Sequence[Side]) -> float:
    return sides[0].rate / sides[1].rate


def cpu_ratio(sides: Sequence[Side]) -> float:
    ours, trl = (median(side.rates("cpuSeconds")) for side in sides)
    return ours / trl


def best_ratio(sides: Sequence[Side]) -> float:
    """Of the fastest block of each: what a noisy machine leaves of a quiet one."""
    ours, trl = (max(side.rates()) for side in sides)
    return ours / trl


def spread(sides: Sequence[Side]) -> tuple[float, float]:
    pairs = [ours / trl for ours, trl in zip(*(side.rates() for side in sides), strict=True)]
    return min(pairs), max(pairs)


def memory_ratio(sides: Sequence[Side]) -> float:
    return sides[0].peak_mib / sides[1].peak_mib


def figures(
    results: Sequence[Sequence[Side]], costs: dict[str, Any], *, floor: float, commit: str, load: float
) -> dict[str, Any]:
    """The last line. Peak memory is that of the largest batch."""
    by_batch = {sides[0].case.batch: sides for sides in results}
    body: dict[str, Any] = {}
    for batch in sorted({16, 64, *by_batch}):
        sides = by_batch.get(batch, ())
        body[f"completions_per_s_over_trl_b{batch}"] = round(ratio(sides), 3) if len(sides) == 2 else None
        body[f"best_blocks_over_trl_b{batch}"] = round(best_ratio(sides), 3) if len(sides) == 2 else None
    largest = by_batch[max(by_batch)]
    body["peak_memory_over_trl"] = round(memory_ratio(largest), 3) if len(largest) == 2 else None
    above = [side.peak_mib - floor for side in largest]
    body["peak_memory_above_imports_over_trl"] = round(above[0] / above[1], 3) if len(largest) == 2 else None
    body["imports_mib"] = round(floor)
    body["peak_mib"] = {side.name: round(side.peak_mib) for side in largest}
    body["completions_per_s"] = {
        side.name: {s.case.batch: round(s.rate, 1) for sides in results for s in sides if s.name == side.name}
        for side in results[0]
    }
    body["sampler_over_generate"] = {row["batch"]: round(row["sampler"] / row["generate"], 2) for row in costs["equal"]}
    for key in ("emaSeconds", "evaluationSeconds", "resumeStateSeconds"):
        body[f"{key.removesuffix('Seconds')}_ms"] = round(1000 * costs[key], 3)
    body["versions"] = results[0][-1].facts["versions"]
    body["best_completions_per_s"] = {
        side.name: {s.case.batch: round(max(s.rates()), 1) for sides in results for s in sides if s.name == side.name}
        for side in results[0]
    }
    body["load"] = round(load, 2)
    body["commit"] = commit
    return body


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.rl")
    parser.add_argument("--laboratory", type=Path, required=True, help="folder that python -m warpctl.tiny made")
    parser.add_argument("--trl", help="the interpreter that has TRL; left out: our side alone")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 64], help="completions per step")
    parser.add_argument("--sampler-batches", type=int, nargs="+", default=[8, 16, 64, 256])
    parser.add_argument("--tokens", type=int, default=16, help="of every completion (the laboratory's mean)")
    parser.add_argument("--steps", type=int, default=5, help="of a block")
    parser.add_argument("--blocks", type=int, default=9, help="measured, of each side")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = parse(arguments)
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        policy = make_never_ending(chosen.laboratory / "sft", Path(folder) / "policy")
        (prompts,) = (chosen.laboratory / "prompts").glob("*.jsonl")

        def case(batch: int) -> Case:
            return Case(
                policy=str(policy),
                prompts=str(prompts),
                batch=batch,
                tokens=chosen.tokens,
                block_steps=chosen.steps,
                num_blocks=1 + chosen.blocks,
            )

        load = os.getloadavg()[0]
        print(f"commit {commit}; load {load:.2f} on {os.cpu_count()} cores; {chosen.tokens} tokens a completion")
        print(
            "\nWhole step, completions/s (median of blocks); generate / score / update in ms; peak memory", flush=True
        )
        floor = import_floor_mib()
        results = []
        for batch in chosen.batches:
            results.append(side_by_side(case(batch), chosen.trl))
            print_case(results[-1])
        costs = costs_of(case(16), chosen.laboratory / "sft", chosen.sampler_batches)
    middle = min(results, key=lambda sides: abs(sides[0].case.batch - 16))[0]
    print(f"\nImporting torch and the model's class alone takes {floor:.0f} MiB; peaks above that, largest batch:")
    print("  " + ", ".join(f"{side.name} {side.peak_mib - floor:.0f} MiB" for side in results[-1]))
    print_costs(costs, middle.case.batch / middle.rate, middle.case.batch)
    print(json.dumps(figures(results, costs, floor=floor, commit=commit, load=load)))


if __name__ == "__main__":
    main()
