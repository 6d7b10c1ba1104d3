"""mergekit's recipes, as far as `warpctl merge` computes the very same thing; every other one is refused, with the reason.

Semantics: github.com/arcee-ai/mergekit, 0.1.5, mergekit/{config,plan}.py and mergekit/merge_methods/{slerp,nuslerp,linear}.py.

- slerp: SLERP of the weights themselves, tensor by tensor, from the base model at t = 0 to the other one at t = 1.
- nuslerp of two models beside the base: SLERP of their task vectors at t = w2 / (w1 + w2), tensor by tensor; without a base model
  of the weights themselves.
- linear: the weighted average of models; weights are divided by their sum (`normalize`, its default).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from warpctl.cli.recipe_file import Entry, is_number, load_recipe, mapping, model_uri, read_models, refuse
from warpctl.errors import UserError
from warpctl.merging.slerp_weights import SlerpRule
from warpctl.spec.merge_method import SlerpOf

_KNOWN: Final = {
    "merge_method",
    "base_model",
    "models",
    "slices",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "name",
}
_PARAMETERS: Final[Mapping[str, Mapping[str, bool]]] = {
    "slerp": {},
    "nuslerp": {"nuslerp_flatten": True, "nuslerp_row_wise": False},
    "linear": {"normalize": True},
}
"""Parameters that a method has beside weights and t, each with the only value that is computed here: mergekit's default."""
_LEAST_SUM: Final = Decimal("1e-6")
"""Of nuslerp's weights; mergekit takes the middle if they are less."""
_REASONS: Final = {
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
    slerp_rules: tuple[SlerpRule, ...] = ()
    slerp_of: SlerpOf = SlerpOf.TASK_VECTORS
    num_layers: int = 0
    """That all models must have; 0: it does not say."""


def refuse_beside_recipe(given: Mapping[str, bool]) -> None:
    """UserError for an option that the recipe decides."""
    for option, is_given in given.items():
        if is_given:
            raise UserError(f"{option} and --recipe exclude each other", hint="write the options, or write the recipe")


def read_recipe(path: str) -> Recipe:
    """Read a recipe. UserError names the file, what in it is not done here, and why."""
    recipe = load_recipe(path)
    for name in recipe:
        if name not in _KNOWN:
            refuse(path, f"{name}: {_REASONS.get(name, 'is not a field that is known here')}")
    method = str(recipe.get("merge_method"))
    if method not in _PARAMETERS:
        refuse(path, f"merge_method: {method} is not slerp, nuslerp or linear")
    shared = mapping(path, "parameters", recipe.get("parameters"))
    _check_parameters(path, "parameters", method, shared)
    entries, num_layers = read_models(path, recipe)
    base = model_uri(path, "base_model", recipe["base_model"]) if recipe.get("base_model") else ""
    if recipe.get("tokenizer_source") not in (None, "base"):
        refuse(path, "tokenizer_source: the tokenizer is copied from the init; only base is possible")
    dtype = recipe.get("out_dtype") or recipe.get("dtype") or "float32"
    if dtype not in ("float32", "bfloat16"):
        refuse(path, f"dtype: {dtype} is not float32 or bfloat16")
    if method == "slerp":
        how = _slerp(path, base, entries, shared)
    elif method == "nuslerp":
        how = _nuslerp(path, base, _weights(path, method, entries, shared, without=base))
    else:
        how = _linear(path, base, _weights(path, method, entries, shared))
    return Recipe(**how, dtype=dtype, num_layers=num_layers)


def _slerp(path: str, base: str, entries: list[Entry], shared: Mapping[str, Any]) -> dict[str, Any]:
    if not base:
        refuse(path, "base_model is missing: slerp goes from it, at t = 0, to the other model, at t = 1")
    for entry in entries:
        if entry.parameters:
            refuse(path, f"{entry.place}.parameters: a model of slerp has none; t is in those of the recipe")
    others = [entry.model for entry in entries if entry.model != base]
    if len(others) != 1:
        refuse(path, f"slerp takes one model beside base_model, not {len(others)}")
    rules = _rules(path, shared.get("t"))
    return {"init": base, "policies": tuple(others), "slerp_rules": rules, "slerp_of": SlerpOf.WEIGHTS}


def _rules(path: str, setting: Any) -> tuple[SlerpRule, ...]:
    """t: a number, a list of them along the layers, or a list of such values, each for tensors with some word in their names."""
    if setting is None:
        refuse(path, "parameters.t is missing: 0 is base_model, 1 the other model")
    if isinstance(setting, dict):
        setting = [setting]
    if not isinstance(setting, list) or not any(isinstance(item, dict) for item in setting):
        return (SlerpRule(_points(path, "parameters.t", setting)),)
    rules = []
    for number, item in enumerate(setting):
        place = f"parameters.t[{number}]"
        if not isinstance(item, dict) or set(item) - {"filter", "value"}:
            refuse(path, f"{place}: must be a filter, which may be left out, and a value")
        part = item.get("filter")
        if part is not None and not isinstance(part, str):
            refuse(path, f"{place}.filter: must be a part of the names of tensors")
        rules.append(SlerpRule(_points(path, f"{place}.value", item.get("value")), "" if part in (None, "*") else part))
    return tuple(rules)


def _points(path: str, place: str, value: Any) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value]
    for number in numbers:
        if not is_number(number) or not 0 <= number <= 1:
            refuse(path, f"{place}: {number} is not a number from 0, which is base_model, to 1, the other model")
    if not numbers:
        refuse(path, f"{place}: the list is empty")
    return tuple(float(number) for number in numbers)


def _nuslerp(path: str, base: str, models: list[tuple[str, Decimal]]) -> dict[str, Any]:
    if len(models) != 2:
        refuse(path, f"nuslerp takes two models{' beside the base' if base else ''}, not {len(models)}")
    (one, weight_of_one), (two, weight_of_two) = models
    if min(weight_of_one, weight_of_two) < 0:
        refuse(path, "weight: weights must not be negative; SLERP here is between the two models")
    total = weight_of_one + weight_of_two
    rule = SlerpRule((float(weight_of_two / total) if total >= _LEAST_SUM else 0.5,))
    if base:
        return {"init": base, "policies": (one, two), "slerp_rules": (rule,)}
    return {"init": one, "policies": (two,), "slerp_rules": (rule,), "slerp_of": SlerpOf.WEIGHTS}


def _linear(path: str, base: str, models: list[tuple[str, Decimal]]) -> dict[str, Any]:
    if len(models) < 2:
        refuse(path, "models: linear takes two models or more, not 1")
    if base and base not in {model for model, _ in models}:
        refuse(path, "base_model: must be one of the models of a linear merge")
    # Config and tokenizer come from the first one; sorting is stable.
    (first, _), *others = sorted(models, key=lambda model: base not in ("", model[0]))
    total = sum(weight for _, weight in models)
    if min(weight for _, weight in models) < 0 or not total:
        refuse(path, "weight: weights must not be negative, and not all zero")
    return {
        "init": first,
        "policies": tuple(model for model, _ in others),
        "linear_weights": tuple(float(weight / total) for _, weight in others),
    }


def _weights(
    path: str, method: str, entries: list[Entry], shared: Mapping[str, Any], *, without: str = ""
) -> list[tuple[str, Decimal]]:
    """Of each model but one, which needs none."""
    found = []
    for entry in entries:
        _check_parameters(path, f"{entry.place}.parameters", method, entry.parameters)
        if entry.model == without:
            continue
        weight = entry.parameters.get("weight", shared.get("weight"))
        if isinstance(weight, list | dict):
            refuse(path, f"{entry.place}.parameters.weight: gradients and filters are not done here, one number is")
        if not is_number(weight):
            refuse(path, f"{entry.place}.parameters.weight: must be a number")
        found.append((entry.model, Decimal(str(weight))))
    return found


def _check_parameters(path: str, place: str, method: str, parameters: Mapping[str, Any]) -> None:
    of_method = "t" if method == "slerp" else "weight"
    for name, value in parameters.items():
        only = _PARAMETERS[method].get(name)
        if name != of_method and (only is None or value is not only):
            refuse(path, f"{place}.{name}: {value} is not done here" + ("" if only is None else f"; {only} is"))
