"""A recipe as it is written: its fields, and the models in it. merge_recipe.py says what they mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Never

from warpctl.errors import UserError


class Entry(NamedTuple):
    """A model of the recipe, and where it is written there."""

    place: str
    model: str
    parameters: Mapping[str, Any]


def load_recipe(path: str) -> Mapping[str, Any]:
    """UserError when it cannot be read, or is not YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return mapping(path, "the recipe", YAML(typ="safe", pure=True).load(Path(path).expanduser().read_text()))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", hint="--recipe names a file in YAML") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not YAML: {str(error).splitlines()[0]}", hint="--recipe names a file in YAML"
        ) from error


def read_models(path: str, recipe: Mapping[str, Any]) -> tuple[list[Entry], int]:
    """The models, and how many layers each must have: one slice of all layers is the whole of them."""
    if "slices" not in recipe:
        return _models(path, "models", recipe.get("models"), {"model", "parameters"}), 0
    slices = recipe["slices"]
    if "models" in recipe or not isinstance(slices, list) or len(slices) != 1:
        refuse(path, "slices: layers of several models cannot be stacked here; one slice of whole models is possible")
    only = mapping(path, "slices[0]", slices[0])
    if set(only) - {"sources"}:
        refuse(path, f"slices[0]: {min(set(only) - {'sources'})} is not known here; write it for the whole recipe")
    place = "slices[0].sources"
    entries = _models(path, place, only.get("sources"), {"model", "parameters", "layer_range"})
    ranges = [source.get("layer_range") for source in only["sources"]]
    first = ranges[0]
    is_range = isinstance(first, list) and len(first) == 2 and type(first[1]) is int and first[0] == 0 < first[1]
    if not is_range or any(other != first for other in ranges):
        refuse(
            path,
            f"{place}: layer_range must be [0, layers of the model], the same in all; layers cannot be cut out here",
        )
    return entries, first[1]


def _models(path: str, place: str, models: Any, known: set[str]) -> list[Entry]:
    if not isinstance(models, list) or not models:
        refuse(path, f"{place}: must be a list of models")
    found = []
    for number, each in enumerate(models):
        here = f"{place}[{number}]"
        fields = mapping(path, here, each)
        if set(fields) - known:
            refuse(path, f"{here}: {min(set(fields) - known)} is not known here")
        own = mapping(path, f"{here}.parameters", fields.get("parameters"))
        found.append(Entry(here, model_uri(path, f"{here}.model", fields.get("model")), own))
    return found


def is_number(value: Any) -> bool:
    """A finite one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def model_uri(path: str, place: str, value: Any) -> str:
    """The value, or UserError."""
    if not isinstance(value, str) or not value:
        refuse(path, f"{place}: must be a path or URI")
    return value


def mapping(path: str, place: str, value: Any) -> Mapping[str, Any]:
    """The value, empty where there is none, or UserError."""
    if value is not None and not isinstance(value, dict):
        refuse(path, f"{place}: must be a mapping")
    return value or {}


def refuse(path: str, why: str) -> Never:
    """UserError for what cannot be done here."""
    raise UserError(f"{path}: {why}", hint="docs/merging.md says which recipes are done; mergekit-yaml does the others")
