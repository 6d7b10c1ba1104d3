"""What both sides of the benchmark are told: one step of RL, the same for warpctl and for TRL. Plain Python: it is imported
in two virtual environments.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

TEMPERATURE = "0.9"
KL_COEFFICIENT = "0.1"
EMA_RATE = "0.02"
LEARNING_RATE = "1e-5"
"""Small, so that the policy stays where it is: a step costs the same at any rate."""
BETAS = ("0.9", "0.95")
WARM_UP_STEPS = 8
MAX_GRAD_NORM = "1"
NUM_GENERATIONS = 2
"""The fewest that RLOO knows."""
GROUND_TRUTH = "warpctl.tiny.ground_truth:score"


@dataclass(frozen=True)
class Case:
    """One size, run in blocks of steps; the first block warms up and is dropped."""

    policy: str
    """Folder of a policy that never ends a completion (never_ending.py)."""
    prompts: str
    """JSONL file of prompts."""
    batch: int
    """Completions per step."""
    tokens: int
    """Tokens of every completion."""
    block_steps: int
    num_blocks: int
    """The warm-up included."""

    @property
    def steps(self) -> int:
        return self.block_steps * self.num_blocks

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))
