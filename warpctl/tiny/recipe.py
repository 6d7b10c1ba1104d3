"""The numbers of the tiny laboratory (recipe q1). Plain data: what is made is a function of these and the words."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from warpctl.tiny import grammar

VERSION = 2
"""Raised whenever the code makes something else from the same numbers."""


@dataclass(frozen=True)
class Recipe:
    """Seed, sizes and training lengths."""

    seed: int = 0
    width: int = 128
    """Hidden size of the policy."""
    num_layers: int = 2
    num_heads: int = 4
    sft_steps: int = 250
    sft_batch: int = 64
    sft_learning_rate: float = 3e-3
    num_prompts: int = 1024
    num_pairs: int = 2000
    label_sharpness: float = 1.0
    """A pair's label prefers a with probability sigmoid(sharpness * (value of a - value of b)): the judge errs often
enough that the reward model learns only roughly what is good, and can be hacked."""
    temperature: str = "0.9"
    """Of the completions that are compared, and that the reward model is standardised over."""
    reward_width: int = 64
    reward_heads: int = 4
    reward_steps: int = 200
    reward_batch: int = 64
    reward_learning_rate: float = 2e-3

    def digest(self) -> str:
        """Names what is made: sha256 over the numbers, the words and the grammar."""
        content = [VERSION, asdict(self), grammar.VOCABULARY, grammar.GRAMMAR, grammar.DETAILS_OF]
        sticking = [grammar.OWN_ASPECT, grammar.OWN_PRODUCT, grammar.OWN_TRAIT, grammar.OWN_DETAIL]
        return hashlib.sha256(json.dumps([content, sticking], sort_keys=True).encode()).hexdigest()
