"""Where randomness comes from: nothing is carried from step to step, so there is no generator to lose on a resume.

Every generator is made where it is used, from the run's seed and the purpose and place of its use. A resumed run draws what an
uninterrupted one would have drawn because the same names give the same seeds.
"""

from __future__ import annotations

import hashlib
import json

import torch

MAX_SEED = 2**63 - 1


def derived_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed: the first bytes of sha256 over the canonical JSON of (seed, *names)."""
    digest = hashlib.sha256(json.dumps([seed, *names], separators=(",", ":")).encode()).digest()
    return int.from_bytes(digest[:8], "big") & MAX_SEED


def prompt_rows(num_prompts: int, *, first: int, count: int, seed: int) -> list[int]:
    """Rows of the prompt set at positions first ... first + count - 1 of an endless reading in random order.

    Each epoch is a permutation of its own, so every prompt comes once before any comes twice.
    """
    rows: list[int] = []
    position = first
    while len(rows) < count:
        epoch, offset = divmod(position, num_prompts)
        generator = torch.Generator().manual_seed(derived_seed(seed, "epoch", epoch))
        order = torch.randperm(num_prompts, generator=generator).tolist()
        taken = order[offset : offset + count - len(rows)]
        rows += taken
        position += len(taken)
    return rows
