"""A sequence-classification checkpoint as a reward: its own tokenizer, one logit, batched by length.

It reads prompt and completion as one text: its tokens of the prompt, then those of the completion, with the special
tokens that its tokenizer puts around a text (unless the prompt brings them, as a rendered conversation does). Prompt
and completion are tokenized apart, so that a completion's tokens do not depend on how the prompt ends. Of a text that
is too long for it, the beginning is cut.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from transformers import AutoModelForSequenceClassification

from warpctl.errors import InputError
from warpctl.storage.artifact import Artifact
from warpctl.workers.policies import load_tokenizer
from warpctl.workers.pretrained import load_pretrained

BATCH = 64
"""Texts scored together."""
NO_LIMIT = 10**9
"""Tokenizers without a limit say a number beyond this."""


class RewardModel:
    """Scores texts with a classifier's one logit, in float32."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str) -> None:
        num_labels = model.config.num_labels
        if num_labels != 1:
            raise InputError(
                f"reward {name!r}: its model has {num_labels} outputs", hint="a reward model has one (num_labels 1)"
            )
        self._model = model
        self._tokenizer = tokenizer
        self._prefix, self._suffix = special_tokens_around(tokenizer)
        config = model.config.get_text_config()
        pad = tokenizer.pad_token_id
        self._pad_token: int = pad if pad is not None else (tokenizer.eos_token_id or 0)
        if config.pad_token_id is None:  # causal classifiers find the last true token by it
            config.pad_token_id = self._pad_token
        limits = [tokenizer.model_max_length or NO_LIMIT, getattr(config, "max_position_embeddings", None) or NO_LIMIT]
        self._max_tokens = min(limits)

    @classmethod
    def load(cls, artifact: Artifact, *, name: str, device: Any = "cpu") -> Self:
        """The model and tokenizer of an imported checkpoint."""
        with tempfile.TemporaryDirectory(prefix="warpctl-reward-") as folder:
            place = artifact.download(Path(folder))
            label = f"reward {name!r}"
            model = load_pretrained(AutoModelForSequenceClassification, place, label=label).to(device).eval()
            return cls(model, load_tokenizer(place, label=label), name=name)

    def tokens(self, prompts: Sequence[str], completions: Sequence[str]) -> list[list[int]]:
        """What the model reads of each pair."""
        prompt_tokens = self._tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
        completion_tokens = self._tokenizer(list(completions), add_special_tokens=False)["input_ids"]
        rows = []
        for prompt, completion in zip(prompt_tokens, completion_tokens, strict=True):
            prefix = [] if self._prefix and prompt[: len(self._prefix)] == self._prefix else self._prefix
            free = self._max_tokens - len(prefix) - len(self._suffix)
            rows.append([*prefix, *[*prompt, *completion][-free:], *self._suffix])
        return rows

    @torch.no_grad()
    def __call__(self, prompts: list[str], completions: list[str]) -> list[float]:
        rows = self.tokens(prompts, completions)
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        scores = [0.0] * len(rows)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            longest = len(rows[batch[-1]])
            padded = [rows[row] + [self._pad_token] * (longest - len(rows[row])) for row in batch]
            mask = [[1] * len(rows[row]) + [0] * (longest - len(rows[row])) for row in batch]
            device = self._model.device
            output = self._model(
                input_ids=torch.tensor(padded, device=device), attention_mask=torch.tensor(mask, device=device)
            )
            for row, value in zip(batch, output.logits[:, 0].float().tolist(), strict=True):
                scores[row] = value
        return scores


def special_tokens_around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text, seen on an example."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    dressed = tokenizer("a")["input_ids"]
    for start in range(len(dressed) - len(bare) + 1):
        if dressed[start : start + len(bare)] == bare:
            return dressed[:start], dressed[start + len(bare) :]
    return [], []
