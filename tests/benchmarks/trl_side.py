"""TRL's RLOOTrainer on one case, in TRL's own environment: python -m tests.benchmarks.trl_side CASE_AS_JSON.

What is switched off is what the other side does not do either: gradient checkpointing, bfloat16, logging, saving.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import RLOOConfig, RLOOTrainer

from tests.benchmarks.blocks import Blocks
from tests.benchmarks.case import (
    BETAS,
    EMA_RATE,
    KL_COEFFICIENT,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    NUM_GENERATIONS,
    TEMPERATURE,
    WARM_UP_STEPS,
    Case,
)
from warpctl.tiny.ground_truth import score


def reward(prompts, completions, **_others):
    return score(prompts, completions)


class StepEnds(TrainerCallback):
    def __init__(self, blocks):
        self.blocks = blocks
        self.ended_at: list[float] = []

    def on_step_end(self, args, state, control, **_others):
        self.ended_at.append(time.perf_counter())
        self.blocks.step_ended()


class TimedTrainer(RLOOTrainer):
    """Notes the seconds of generation and of everything up to the advantages, and how long completions are."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.generate_seconds: list[float] = []
        self.advantage_seconds: list[float] = []
        self.advantages_at: list[float] = []
        self.lengths: set[int] = set()

    def _generate_single_turn(self, *arguments, **named):
        start = time.perf_counter()
        completions = super()._generate_single_turn(*arguments, **named)
        self.generate_seconds.append(time.perf_counter() - start)
        self.lengths.update(len(tokens) for tokens in completions)
        return completions

    def _generate_and_score_completions(self, inputs):
        start = time.perf_counter()
        batch = super()._generate_and_score_completions(inputs)
        self.advantages_at.append(time.perf_counter())
        self.advantage_seconds.append(self.advantages_at[-1] - start)
        return batch


def main(case: Case) -> None:
    blocks = Blocks(case.block_steps, case.num_blocks)
    torch.set_num_threads(1)
    prompts = [json.loads(line)["prompt"] for line in Path(case.prompts).read_text().splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        trainer = TimedTrainer(
            model=case.policy,
            reward_funcs=reward,
            args=RLOOConfig(
                output_dir=folder,
                use_cpu=True,
                bf16=False,
                model_init_kwargs={"dtype": "float32"},
                gradient_checkpointing=False,
                per_device_train_batch_size=case.batch,
                gradient_accumulation_steps=1,
                num_generations=NUM_GENERATIONS,
                max_steps=case.steps,
                max_completion_length=case.tokens,
                temperature=float(TEMPERATURE),
                beta=float(KL_COEFFICIENT),
                # TRL: ref = alpha * policy + (1 - alpha) * ref; so alpha is the EMA rate mu itself
                sync_ref_model=True,
                ref_model_sync_steps=1,
                ref_model_mixup_alpha=float(EMA_RATE),
                learning_rate=float(LEARNING_RATE),
                adam_beta1=float(BETAS[0]),
                adam_beta2=float(BETAS[1]),
                weight_decay=0.0,
                max_grad_norm=float(MAX_GRAD_NORM),
                lr_scheduler_type="constant_with_warmup",
                warmup_steps=WARM_UP_STEPS,
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=AutoTokenizer.from_pretrained(case.policy, padding_side="left"),
        )
        step_ends = StepEnds(blocks)
        trainer.add_callback(step_ends)  # behind the one that moves the reference model
        before = [parameter.detach().clone() for parameter in trainer.ref_model.parameters()]
        trainer.train()
        moved = max((a - b).abs().max() for a, b in zip(before, trainer.ref_model.parameters(), strict=True))
    skipped = case.block_steps if case.num_blocks > 1 else 0
    starts = trainer.advantages_at
    updates = [end - start for start, end in zip(starts, step_ends.ended_at, strict=True)]
    scores = [
        both - generate for both, generate in zip(trainer.advantage_seconds, trainer.generate_seconds, strict=True)
    ]
    blocks.answer(
        {
            "versions": {name: version(name) for name in ("trl", "torch", "transformers")},
            "lengths": sorted(trainer.lengths),
            "anchorMoved": moved.item() > 0,
            "generateSeconds": median(trainer.generate_seconds[skipped:]),
            "scoreSeconds": median(scores[skipped:]),
            "updateSeconds": median(updates[skipped:]),
        }
    )


if __name__ == "__main__":
    main(Case.from_json(sys.argv[1]))
