"""Models as transformers makes them from a folder, with every weight that does not fit refused instead of made up.

The weights of a policy are read apart from it (policy_weights.py); transformers says where each of them belongs, since it renames,
converts and ties them for many architectures.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.initialization import meta_device_safe_creation_ops
from transformers.utils import CONFIG_NAME, logging

from warpctl.errors import InputError

_SETTINGS: Final[Mapping[str, Any]] = {
    "dtype": torch.float32,
    "trust_remote_code": False,
    "use_safetensors": True,
    "local_files_only": True,
    "output_loading_info": True,
}


@dataclass(frozen=True)
class Outline:
    """A causal language model whose weights take no memory yet."""

    model: Any
    places: Mapping[str, Tensor]
    """By the names in its checkpoint: the parameter (or buffer) of the model that a stored tensor is."""


def load_pretrained(model_class: Any, folder: Path, *, label: str) -> Any:
    """from_pretrained in float32. Others may lie beside the weights (a classifier's still has the head of its language model).

    The attention implementation is transformers' choice for the architecture: sdpa where it exists, else eager.
    """
    with _refusals(label):
        model, info = model_class.from_pretrained(folder, **_SETTINGS)
    _refuse_missing(info, label)
    # a copy that owns its memory: loading may map the file, the folder goes away, and nothing may hang on its files
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    return model


def outline(folder: Path, shapes: Mapping[str, tuple[int, ...]], *, label: str) -> Outline | None:
    """The model of a folder's config and of a checkpoint of these tensors, before any is read.

    None when transformers must see their values: some have other names in the model or none, are converted into others, or
    are one there; place_weights then says what does not fit. InputError when some are missing or have other shapes.
    """
    with _refusals(label):
        bare = _bare(folder)
    if not shapes.keys() <= bare.state_dict().keys():
        return None
    # One number each. All are zero: tensors that are one if they are equal become one, and are seen to.
    zeros = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    model = _placed(bare, folder, zeros, label=label)
    by_storage = {_storage(tensor): tensor for tensor in (*model.buffers(), *model.parameters())}
    places = {name: found for name, zero in zeros.items() if (found := by_storage.get(_storage(zero))) is not None}
    if {name: tuple(place.shape) for name, place in places.items()} != dict(shapes):
        return None  # also a view in another shape: a conversion that only moves values leaves zeros where they are
    return Outline(model, places)


def place_weights(folder: Path, weights: MutableMapping[str, Tensor], *, label: str) -> Any:
    """The causal language model of a folder's config with `weights`, its own from now on: they are taken out of the mapping.

    Those that are converted go when they were: memory for one converted parameter comes on top. InputError as above.
    """
    with _refusals(label):
        bare = _bare(folder)
    return _placed(bare, folder, {name: _GivenOnce(weights.pop(name)) for name in tuple(weights)}, label=label)


class _GivenOnce:
    """What transformers takes for a part of a file; it lets go of the tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = [tensor]

    def __getitem__(self, _: Any) -> Tensor:
        return self._tensor.pop()


def _bare(folder: Path) -> Any:
    """A model without memory: it knows its class, which is needed to load weights without a folder, and its names."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"), meta_device_safe_creation_ops():  # as from_pretrained does: some models look at values
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def _placed(bare: Any, folder: Path, weights: Mapping[str, Any], *, label: str) -> Any:
    with _refusals(label):
        model, info = type(bare).from_pretrained(None, config=bare.config, state_dict=weights, **_SETTINGS)
    _refuse_missing(info, label)
    unexpected = sorted(info["unexpected_keys"])
    if unexpected:
        raise InputError(
            f"{label} holds {len(unexpected)} weights that its kind of model has not, the first is {unexpected[0]}",
            hint="training would lose them, and nothing could be merged; import a checkpoint without them",
        )
    if model.can_generate():
        model.generation_config = _generation_config(folder)
    return model


def _generation_config(folder: Path) -> GenerationConfig:
    """That of the folder, else what its config says of generation, as from_pretrained of a folder does."""
    with contextlib.suppress(OSError):  # it is not there, or not JSON
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    return GenerationConfig.from_pretrained(
        folder, config_file_name=CONFIG_NAME, local_files_only=True, _from_model_config=True
    )


@contextlib.contextmanager
def _refusals(label: str) -> Iterator[None]:
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise InputError(
            f"{label} cannot be loaded: {error}",
            hint="it must be a transformers checkpoint in safetensors that needs no code of its own",
        ) from error


def _refuse_missing(info: Mapping[str, Any], label: str) -> None:
    missing = sorted(info["missing_keys"])
    if missing:
        raise InputError(
            f"{label} lacks {len(missing)} weights, the first is {missing[0]}",
            hint="is it a checkpoint of this kind of model? A reward needs its classification head, too",
        )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
