"""Causal language models and their tokenizers, from artifacts: float32 weights, safetensors only, no code of theirs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from warpctl.errors import InputError
from warpctl.spec.training import Precision
from warpctl.storage.artifact import Artifact


@dataclass(frozen=True)
class Vocabulary:
    """What sampling needs to know of a tokenizer."""

    tokenizer: Any
    end_tokens: frozenset[int]
    """Tokens that end a completion: those of the generation config, the config and the tokenizer."""
    pad_token: int
    """Fills rows; masked everywhere, so that any token serves where the tokenizer has none."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of some tokens, special tokens left out: what rewards read."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))


def load_policy(artifact: Artifact, prefix: str = "", *, device: torch.device | str = "cpu") -> tuple[Any, Vocabulary]:
    """The model with float32 weights in eval mode (no dropout, in training either), and its vocabulary.

    Raises InputError for weights that do not fit their config, and for what only a repository's own code could load.
    """
    with tempfile.TemporaryDirectory(prefix="warpctl-policy-") as folder:
        place = artifact.download(Path(folder), prefix=prefix)
        label = f"{artifact.manifest.stage_id}: {prefix or 'the model'}"
        model = load_pretrained(AutoModelForCausalLM, place, label=label)
        tokenizer = load_tokenizer(place, label=label)
        # moved, not mapped: the folder goes away, and nothing may hang on its files
        model = model.to(device).eval()
    return model, vocabulary_of(model, tokenizer)


def load_pretrained(model_class: Any, folder: Path, *, label: str) -> Any:
    """from_pretrained with every missing, unexpected or mismatched weight refused instead of made up.

    The attention implementation is transformers' choice for the architecture: sdpa where it exists, else eager.
    """
    logging.disable_progress_bar()
    try:
        model, info = model_class.from_pretrained(
            folder,
            dtype=torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise InputError(
            f"{label} cannot be loaded: {error}",
            hint="it must be a transformers checkpoint in safetensors that needs no code of its own",
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise InputError(
            f"{label} lacks {len(missing)} weights, the first is {missing[0]}",
            hint="is it a checkpoint of this kind of model? A reward needs its classification head, too",
        )
    # a copy that owns its memory: loading may map the file
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    return model


def load_tokenizer(folder: Path, *, label: str) -> Any:
    """The tokenizer that lies beside the weights."""
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(
            f"{label}: its tokenizer cannot be loaded: {error}", hint="import the tokenizer with the weights"
        ) from error


def vocabulary_of(model: Any, tokenizer: Any) -> Vocabulary:
    """End and padding tokens; InputError when nothing says how a completion ends."""
    ends: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config.get_text_config(), tokenizer):
        found = getattr(source, "eos_token_id", None)
        ends |= {found} if isinstance(found, int) else set(found or ())
    if not ends:
        raise InputError(
            "the policy has no end-of-sequence token", hint="set eos_token in its tokenizer_config.json or config.json"
        )
    pad = tokenizer.pad_token_id
    return Vocabulary(tokenizer=tokenizer, end_tokens=frozenset(ends), pad_token=min(ends) if pad is None else pad)


def arithmetic(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """The context of forward passes: autocast to bfloat16, or nothing."""
    if precision is Precision.BFLOAT16:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
