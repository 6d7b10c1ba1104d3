"""mergekit's recipes, as far as `warpctl merge` computes the very same thing; every other one is refused, with the reason.

Semantics: github.com/arcee-ai/mergekit, 0.1.5, mergekit/config.py and mergekit/merge_methods/{nuslerp,linear}.py.

- nuslerp with a base model and two others of equal weight: SLERP of their task vectors at 1/2, tensor by tensor.
- linear: the weighted average of models; weights are divided by their sum (`normalize`, its default).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Never

from warpctl.errors import UserError

_KNOWN: Final = {"merge_method", "base_model", "models", "parameters", "dtype", "out_dtype", "tokenizer_source", "name"}
_PARAMETERS: Final[Mapping[str, Mapping[str, bool]]] = {
    "nuslerp": {"nuslerp_flatten": True, "nuslerp_row_wise": False},
    "linear": {"normalize": True},
}
"""Parameters that a method has beside weights, each with the only value that is computed here: mergekit's default."""
_REASONS: Final = {
    "slices": "layers of several models cannot be stacked here",
    "modules": "modules cannot be merged each in its own way here",
    "tokenizer": "tokenizers are copied from the init, not made",
    "chat_template": "chat templates are copied from the init",
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """The options of `warpctl merge` that a recipe stands for; granularity is Tensor."""

    init: str
    policies: tuple[str, ...]
    dtype: str
    linear_weights: tuple[float, ...] = ()
    """Of each policy, in an average; the init weighs the rest of 1. (): SLERP."""


def refuse_beside_recipe(given: Mapping[str, bool]) -> None:
    """UserError for an option that the recipe decides."""
    for option, is_given in given.items():
        if is_given:
            raise UserError(f"{option} and --recipe exclude each other", hint="write the options, or write the recipe")


def read_recipe(path: str) -> Recipe:
    """Read a recipe. UserError names the file, what in it is not done here, and why."""
    recipe = _load(path)
    for name in recipe:
        if name not in _KNOWN:
            _refuse(path, f"{name}: {_REASONS.get(name, 'is not a field that is known here')}")
    method = str(recipe.get("merge_method"))
    if method not in _PARAMETERS:
        reason = (
            "SLERP of full weights is not done here; where their cosine is above 0.9995 it is linear with weights 1 - t and t, "
            "and SLERP of task vectors is nuslerp with a base_model"
        )
        _refuse(path, f"merge_method: {method}" + (f": {reason}" if method == "slerp" else " is not nuslerp or linear"))
    shared = _mapping(path, "parameters", recipe.get("parameters"))
    _check_parameters(path, method, shared)
    models = _weights(path, method, recipe.get("models"), shared)
    base = _model(path, "base_model", recipe["base_model"]) if recipe.get("base_model") else ""
    if recipe.get("tokenizer_source") not in (None, "base"):
        _refuse(path, "tokenizer_source: the tokenizer is copied from the init; only base is possible")
    dtype = recipe.get("out_dtype") or recipe.get("dtype") or "float32"
    if dtype not in ("float32", "bfloat16"):
        _refuse(path, f"dtype: {dtype} is not float32 or bfloat16")
    one_and_two = _nuslerp(path, base, models) if method == "nuslerp" else _linear(path, base, models)
    return Recipe(**one_and_two, dtype=dtype)


def _nuslerp(path: str, base: str, models: list[tuple[str, Decimal]]) -> dict[str, Any]:
    if not base:
        _refuse(path, "nuslerp without base_model is SLERP of full weights; SLERP here is that of task vectors")
    others = [(model, weight) for model, weight in models if model != base]
    if len(others) != 2:
        _refuse(path, f"nuslerp takes two models beside the base, not {len(others)}")
    if others[0][1] != others[1][1]:
        _refuse(path, "weight: the two models must weigh the same; SLERP here is at the middle")
    return {"init": base, "policies": tuple(model for model, _ in others)}


def _linear(path: str, base: str, models: list[tuple[str, Decimal]]) -> dict[str, Any]:
    if len(models) < 2:
        _refuse(path, "models: linear takes two models or more, not 1")
    if base and base not in {model for model, _ in models}:
        _refuse(path, "base_model: must be one of the models of a linear merge")
    # Config and tokenizer come from the first one; sorting is stable.
    (first, _), *others = sorted(models, key=lambda model: base not in ("", model[0]))
    total = sum(weight for _, weight in models)
    if min(weight for _, weight in models) < 0 or not total:
        _refuse(path, "weight: weights must not be negative, and not all zero")
    return {
        "init": first,
        "policies": tuple(model for model, _ in others),
        "linear_weights": tuple(float(weight / total) for _, weight in others),
    }


def _weights(path: str, method: str, models: Any, shared: Mapping[str, Any]) -> list[tuple[str, Decimal]]:
    if not isinstance(models, list) or not models:
        _refuse(path, "models: must be a list of models")
    found = []
    for number, entry in enumerate(models):
        place = f"models[{number}]"
        fields = _mapping(path, place, entry)
        if set(fields) - {"model", "parameters"}:
            _refuse(path, f"{place}: {min(set(fields) - {'model', 'parameters'})} is not known here")
        own = _mapping(path, f"{place}.parameters", fields.get("parameters"))
        _check_parameters(path, method, own)
        weight = own.get("weight", shared.get("weight"))
        if isinstance(weight, list | dict):
            _refuse(path, f"{place}.parameters.weight: gradients and filters are not done here, one number is")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            _refuse(path, f"{place}.parameters.weight: must be a number")
        found.append((_model(path, f"{place}.model", fields.get("model")), Decimal(str(weight))))
    return found


def _check_parameters(path: str, method: str, parameters: Mapping[str, Any]) -> None:
    for name, value in parameters.items():
        only = _PARAMETERS[method].get(name)
        if name != "weight" and (only is None or value is not only):
            _refuse(path, f"parameters.{name}: {value} is not done here" + ("" if only is None else f"; {only} is"))


def _model(path: str, place: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        _refuse(path, f"{place}: must be a path or URI")
    return value


def _mapping(path: str, place: str, value: Any) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, dict):
        _refuse(path, f"{place}: must be a mapping")
    return value or {}


def _load(path: str) -> Mapping[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return _mapping(path, "the recipe", YAML(typ="safe", pure=True).load(Path(path).expanduser().read_text()))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", hint="--recipe names a file in YAML") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not YAML: {str(error).splitlines()[0]}", hint="--recipe names a file in YAML"
        ) from error


def _refuse(path: str, why: str) -> Never:
    raise UserError(f"{path}: {why}", hint="docs/merging.md says which recipes are done; mergekit-yaml does the others")
