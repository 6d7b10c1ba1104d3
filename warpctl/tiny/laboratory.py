"""Make the tiny laboratory's folders: sft/, reward/, prompts/ and recipe.json, all or nothing."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from transformers.utils import logging

from warpctl.tiny.grammar import MAX_COMPLETION_TOKENS, all_topics
from warpctl.tiny.policy import train_policy
from warpctl.tiny.preferences import sample_pairs, train_reward_model
from warpctl.tiny.recipe import Recipe
from warpctl.tiny.tokenizer import make_tokenizer

RECIPE_FILE = "recipe.json"


def is_made(folder: Path, recipe: Recipe) -> bool:
    """True if `folder` holds what this recipe makes."""
    try:
        found = json.loads((folder / RECIPE_FILE).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("digest") == recipe.digest()


def make_laboratory(folder: Path, recipe: Recipe, report: Callable[[str], None]) -> bool:
    """Make the folders unless they are there; True if they were made. Another recipe's folder is replaced.

    Deterministic: the same recipe and the same wheels give the same bytes on one CPU thread.
    """
    if is_made(folder, recipe):
        report(f"{folder}: already made")
        return False
    if folder.exists() and any(folder.iterdir()) and not (folder / RECIPE_FILE).exists():
        raise FileExistsError(f"{folder} exists and is not a tiny laboratory; choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # built beside its final place, then renamed: whoever finds the folder finds all of it
    build = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _build(build, recipe, report)
        build.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        build.replace(folder)
    finally:
        shutil.rmtree(build, ignore_errors=True)
    report(f"{folder}: made")
    return True


def _build(folder: Path, recipe: Recipe, report: Callable[[str], None]) -> None:
    torch.set_num_threads(1)  # more threads than quiet cores slow such small matrices down many times over
    logging.disable_progress_bar()
    tokenizer = make_tokenizer()
    policy = train_policy(recipe, report)
    policy.generation_config.max_new_tokens = MAX_COMPLETION_TOKENS
    policy.save_pretrained(folder / "sft")
    tokenizer.save_pretrained(folder / "sft")

    report(f"reward model: sampling {recipe.num_pairs} pairs from the sft policy")
    reward_model = train_reward_model(sample_pairs(policy, recipe), recipe, report)
    reward_model.save_pretrained(folder / "reward")
    tokenizer.save_pretrained(folder / "reward")

    dice = random.Random(f"{recipe.seed}/prompts")  # noqa: S311  # a laboratory, not a lock
    topics = dice.sample(all_topics(), recipe.num_prompts)
    (folder / "prompts").mkdir()
    lines = [json.dumps({"prompt": topic.prompt}) + "\n" for topic in topics]
    (folder / "prompts" / "prompts.jsonl").write_text("".join(lines))
    facts = {"digest": recipe.digest(), "recipe": asdict(recipe)}
    (folder / RECIPE_FILE).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
