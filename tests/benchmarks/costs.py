"""What single pieces of a run cost: python -m tests.benchmarks.costs CASE_AS_JSON; `repeats` are the case's block_steps.

The sampler against transformers.generate, turn by turn; the EMA update, a trajectory evaluation, a resume state. Medians.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from tests.benchmarks.blocks import Blocks
from tests.benchmarks.case import EMA_RATE, TEMPERATURE, Case
from tests.benchmarks.warpctl_side import context_of
from warpctl.rl.anchor import update_anchor_
from warpctl.rl.sampling import sample
from warpctl.spec.training import Sampling
from warpctl.workers.policies import load_tokenizer, vocabulary_of
from warpctl.workers.pretrained import load_pretrained
from warpctl.workers.rl import evaluate
from warpctl.workers.rl_run import load_run, restore, save
from warpctl.workers.trajectory import TrajectoryEvaluation

EVALUATION_PROMPTS = 64
"""The spec's default."""
EMA_UPDATES = 20
"""In one measurement: one update alone is too short for a clock."""


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def turns(works: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each, taking turns after one round of warm-up."""
    rounds = [[seconds_of(work) for work in works] for _ in range(repeats + 1)][1:]
    return [median(row[place] for row in rounds) for place in range(len(works))]


def samplers(policy: Path, prompts: Sequence[str], batch: int, tokens: int, repeats: int) -> dict[str, float]:
    """Completions a second of both, sampling from the whole distribution, at most `tokens` tokens each."""
    model = load_pretrained(AutoModelForCausalLM, policy, label="policy").eval()
    vocabulary = vocabulary_of(model, load_tokenizer(policy, label="policy"))
    rows = [vocabulary.tokenizer(prompts[row % len(prompts)])["input_ids"] for row in range(batch)]
    generator = torch.Generator().manual_seed(1)
    settings = Sampling.model_validate({"temperature": TEMPERATURE, "maxNewTokens": tokens})
    config = GenerationConfig(
        do_sample=True,
        temperature=float(TEMPERATURE),
        top_k=0,
        max_new_tokens=tokens,
        eos_token_id=sorted(vocabulary.end_tokens),
        pad_token_id=vocabulary.pad_token,
        disable_compile=True,
    )
    input_BS = torch.tensor(rows)

    def ours() -> None:
        sample(
            model,
            rows,
            sampling=settings,
            end_tokens=vocabulary.end_tokens,
            pad_token=vocabulary.pad_token,
            generator=generator,
        )

    def theirs() -> None:
        with torch.no_grad():
            model.generate(input_BS, attention_mask=torch.ones_like(input_BS), generation_config=config)

    sampler, generate = turns([ours, theirs], repeats)
    return {"batch": batch, "sampler": batch / sampler, "generate": batch / generate}


def pieces(case: Case, folder: str, repeats: int) -> dict[str, float]:
    """Seconds of one EMA update, one trajectory evaluation, one resume state."""
    context = context_of(case, folder)
    task: Any = context.stage_input.task
    rl_run = load_run(context, task)
    assert rl_run.anchor is not None
    anchor, policy = list(rl_run.anchor.parameters()), list(rl_run.policy.parameters())
    for parameter in policy:  # Adam's moments are a part of a resume state
        parameter.grad = torch.full_like(parameter, 1e-6)
    rl_run.optimizer.step()
    _, metrics = restore(context, rl_run)  # none yet: an empty log
    evaluation = TrajectoryEvaluation(
        prompts=rl_run.evaluation_prompts,
        num_prompts=EVALUATION_PROMPTS,
        seed=task.seed,
        sampling=task.training.sampling,
        vocabulary=rl_run.vocabulary,
        score=rl_run.score,
    )
    saved_steps = iter(range(1, 10_000))

    def move() -> None:
        for _ in range(EMA_UPDATES):
            update_anchor_(anchor, policy, ema_rate=float(EMA_RATE))

    ema, measured, saved = turns(
        [
            move,
            lambda: evaluate(rl_run, evaluation),
            lambda: save(context, rl_run, next(saved_steps), metrics),
        ],
        repeats,
    )
    return {"emaSeconds": ema / EMA_UPDATES, "evaluationSeconds": measured, "resumeStateSeconds": saved}


def main(case: Case, with_ends: Path, batches: Sequence[int]) -> None:
    blocks = Blocks(1, 1)
    torch.set_num_threads(1)
    prompts = [json.loads(line)["prompt"] for line in Path(case.prompts).read_text().splitlines()]
    repeats = case.block_steps
    with tempfile.TemporaryDirectory() as folder:
        blocks.answer(
            {
                "equal": [samplers(Path(case.policy), prompts, batch, case.tokens, repeats) for batch in batches],
                "own": [samplers(with_ends, prompts, batch, 2 * case.tokens, repeats) for batch in batches],
                **pieces(case, folder, repeats),
            }
        )


if __name__ == "__main__":
    main(Case.from_json(sys.argv[1]), Path(sys.argv[2]), [int(batch) for batch in sys.argv[3:]])
