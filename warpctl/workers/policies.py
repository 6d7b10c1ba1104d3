"""Causal language models and their tokenizers, from artifacts: float32 weights, safetensors only, no code of theirs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from warpctl.errors import InputError
from warpctl.spec.training import Precision
from warpctl.storage.artifact import Artifact
from warpctl.storage.file_names import is_weights
from warpctl.storage.headers import TensorInfo
from warpctl.storage.tensors import Checkpoint
from warpctl.workers.policy_weights import fill_weights, read_weights
from warpctl.workers.pretrained import Outline, outline, place_weights


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

    Memory: the float32 weights, on the device alone, and a chunk for each thread that reads. Where transformers renames or
    converts while it loads (experts of some mixtures), the weights pass through the CPU as float32.
    Raises InputError for weights that do not fit their config, and for what only a repository's own code could load.
    """
    with _opened(artifact, prefix) as policy:
        model = policy.load(torch.device(device))
        tokenizer = load_tokenizer(policy.folder, label=policy.label)
    return model.eval(), vocabulary_of(model, tokenizer)


def read_policy(artifact: Artifact, prefix: str, targets: Mapping[str, Tensor]) -> None:
    """Overwrite `targets`, float32 tensors on any device, with the weights that the policy's model has by these names.

    Memory: a chunk for each thread that reads; all weights where transformers renames or converts, as above.
    Raises InputError as load_policy does, and when there are others than `targets`, before anything is overwritten.
    """
    with _opened(artifact, prefix) as policy:
        policy.read_into(targets)


@dataclass(frozen=True)
class _StoredPolicy:
    """A policy in a store: `folder` has what lies beside its weights, for transformers."""

    artifact: Artifact
    tensors: Mapping[str, TensorInfo]
    folder: Path
    label: str

    def load(self, device: torch.device) -> Any:
        found = self._outline()
        if found is None:
            return self._read_first().to(device)
        for tensor in found.places.values():
            tensor.data = torch.empty(tensor.shape, dtype=torch.float32, device=device)  # tied ones stay one
        fill_weights(self.artifact, self.tensors, found.places)
        return found.model.to(device)

    def read_into(self, targets: Mapping[str, Tensor]) -> None:
        found = self._outline()
        parameters = dict((found.model if found else self._read_first()).named_parameters())
        shapes = {name: tuple(target.shape) for name, target in targets.items()}
        if {name: tuple(parameter.shape) for name, parameter in parameters.items()} != shapes:
            raise InputError(
                f"{self.label} has other weights than the SFT policy",
                hint="all policies of a run share one architecture; evaluate policies of this run only",
            )
        if found is None:
            for name, target in targets.items():
                target.detach().copy_(parameters[name].detach())
                # not held twice: targets may have no memory until they are written
                parameters[name].data = torch.empty(0)
            return
        names = {id(parameter): name for name, parameter in parameters.items()}
        places = {stored: names[id(place)] for stored, place in found.places.items() if id(place) in names}
        for name in targets.keys() - places.values():  # what transformers makes up where it is not stored
            targets[name].detach().copy_(parameters[name].detach())
        fill_weights(self.artifact, self.tensors, {stored: targets[name] for stored, name in places.items()})

    def _outline(self) -> Outline | None:
        shapes = {name: info.shape for name, info in self.tensors.items()}
        return outline(self.folder, shapes, label=self.label)

    def _read_first(self) -> Any:
        return place_weights(self.folder, read_weights(self.artifact, self.tensors), label=self.label)


@contextlib.contextmanager
def _opened(artifact: Artifact, prefix: str) -> Iterator[_StoredPolicy]:
    label = f"{artifact.manifest.stage_id}: {prefix or 'the model'}"
    with tempfile.TemporaryDirectory(prefix="warpctl-policy-") as folder:
        place = Path(folder)
        for name in artifact.names(prefix):
            if not is_weights(name):
                (place / name.removeprefix(prefix)).parent.mkdir(parents=True, exist_ok=True)
                (place / name.removeprefix(prefix)).write_bytes(artifact.read(name))
        try:
            tensors = Checkpoint.open(artifact, prefix=prefix).tensors
        except InputError as error:
            raise InputError(f"{label} cannot be loaded: {error.message}", hint=error.hint) from error
        yield _StoredPolicy(artifact, tensors, place, label)


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
