"""Causal language models and their tokenizers, from artifacts: float32 weights, safetensors only, no code of theirs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.initialization import meta_device_safe_creation_ops
from transformers.utils import CONFIG_NAME, logging

from warpctl.errors import InputError
from warpctl.spec.training import Precision
from warpctl.storage.artifact import Artifact
from warpctl.storage.file_names import is_weights
from warpctl.storage.tensors import Checkpoint
from warpctl.workers.policy_weights import read_weights

_SETTINGS: Final[Mapping[str, Any]] = {
    "dtype": torch.float32,
    "trust_remote_code": False,
    "use_safetensors": True,
    "local_files_only": True,
    "output_loading_info": True,
}


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

    Memory: the float32 weights and a few loads of what is stored; twice the weights that transformers converts while it loads
    (experts of some mixtures). On another device than the CPU, once more there.
    Raises InputError for weights that do not fit their config, and for what only a repository's own code could load.
    """
    label = f"{artifact.manifest.stage_id}: {prefix or 'the model'}"
    with tempfile.TemporaryDirectory(prefix="warpctl-policy-") as folder:
        place = Path(folder)
        for name in artifact.names(prefix):
            if not is_weights(name):
                (place / name.removeprefix(prefix)).parent.mkdir(parents=True, exist_ok=True)
                (place / name.removeprefix(prefix)).write_bytes(artifact.read(name))
        try:
            weights = read_weights(Checkpoint.open(artifact, prefix=prefix))
        except InputError as error:
            raise InputError(f"{label} cannot be loaded: {error.message}", hint=error.hint) from error
        model = load_pretrained(AutoModelForCausalLM, place, label=label, weights=weights)
        del weights  # what was converted into other tensors is not needed twice
        tokenizer = load_tokenizer(place, label=label)
    return model.to(device).eval(), vocabulary_of(model, tokenizer)


def load_pretrained(
    model_class: Any, folder: Path, *, label: str, weights: Mapping[str, torch.Tensor] | None = None
) -> Any:
    """from_pretrained with every missing or mismatched weight refused instead of made up.

    `weights`: the model's own from now on, under their names in a checkpoint, none too many; None: those of the folder,
    where others may lie beside them (a classifier's still has the head that it had as a language model). Either way
    transformers puts them in their places, since it renames, converts and ties them for many architectures.
    The attention implementation is transformers' choice for the architecture: sdpa where it exists, else eager.
    """
    logging.disable_progress_bar()
    try:
        if weights is None:
            model, info = model_class.from_pretrained(folder, **_SETTINGS)
        else:
            model, info = _placed(model_class, folder, weights)
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
    unexpected = sorted(info["unexpected_keys"])
    if weights is not None and unexpected:
        raise InputError(
            f"{label} holds {len(unexpected)} weights that its kind of model has not, the first is {unexpected[0]}",
            hint="training would lose them, and nothing could be merged; import a checkpoint without them",
        )
    if weights is None:
        # a copy that owns its memory: loading may map the file, the folder goes away, and nothing may hang on its files
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.data = parameter.data.clone()
    return model


def _placed(model_class: Any, folder: Path, weights: Mapping[str, torch.Tensor]) -> tuple[Any, Any]:
    """A model of the folder's config whose parameters are `weights`, and what did not fit.

    Only a concrete class takes weights without a folder; which one it is, a model without memory says.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"), meta_device_safe_creation_ops():  # as from_pretrained does: some models look at values
        bare = model_class.from_config(config, trust_remote_code=False)
    model, info = type(bare).from_pretrained(None, config=bare.config, state_dict=weights, **_SETTINGS)
    if model.can_generate():
        model.generation_config = _generation_config(folder)
    return model, info


def _generation_config(folder: Path) -> GenerationConfig:
    """That of the folder, else what its config says of generation, as from_pretrained of a folder does."""
    with contextlib.suppress(OSError):  # it is not there, or not JSON
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    return GenerationConfig.from_pretrained(
        folder, config_file_name=CONFIG_NAME, local_files_only=True, _from_model_config=True
    )


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
