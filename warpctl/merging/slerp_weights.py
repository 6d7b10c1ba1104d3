"""lambda of each tensor, as a recipe has it: a number, or numbers along the layers, for all tensors or for some. Pure.

Semantics: github.com/arcee-ai/mergekit, 0.1.5, mergekit/config.py (evaluate_setting) and mergekit/plan.py (plan_slice).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from warpctl.errors import UserError

_LAYER = re.compile(r"((?:.*?\.)?)([0-9]+)\.")


@dataclass(frozen=True, slots=True)
class SlerpRule:
    """For tensors with `part` in their names, "" is in all: one value, or several from the first layer to the last, linear between.

    Tensors outside of the layers (embeddings, norm, head) have the first value.
    """

    values: tuple[float, ...]
    part: str = ""


def slerp_weights(rules: Sequence[SlerpRule], tensors: Iterable[str]) -> dict[str, float]:
    """lambda of each tensor, by the first rule that is for it. UserError when there is none, or when layers are not one row."""
    tensors = list(tensors)
    last = num_layers(tensors) - 1 if any(len(rule.values) > 1 for rule in rules) else 0
    found = {}
    for name in tensors:
        values = next((rule.values for rule in rules if rule.part in name), None)
        if values is None:
            raise UserError(
                f"no value of the recipe's t is for tensor {name}",
                hint="add one without a filter at the end of the list: - value: 0.5",
            )
        found[name] = _at(values, _depth(name, last))
    return found


def num_layers(tensors: Iterable[str]) -> int:
    """How many layers there are, by the largest number; UserError when they are of several kinds, as in a model that also sees."""
    layers = [match.groups() for name in tensors if (match := _LAYER.match(name))]
    kinds = sorted({kind for kind, _ in layers})
    if len(kinds) > 1:
        raise UserError(
            f"the models have layers of several kinds: {', '.join(f'{kind}*' for kind in kinds)}",
            hint="a recipe of one number for each tensor, without lists and slices, can be done",
        )
    return max((int(number) + 1 for _, number in layers), default=0)


def _depth(tensor: str, last: int) -> float:
    """Of its layer, from 0 to 1; 0 outside of the layers; the only layer is at 1."""
    match = _LAYER.match(tensor)
    if match is None:
        return 0.0
    return int(match[2]) / last if last else 1.0


def _at(values: Sequence[float], depth: float) -> float:
    place = depth * (len(values) - 1)
    below = min(int(place), max(len(values) - 2, 0))
    rest = place - below
    return values[below] if not rest else (1 - rest) * values[below] + rest * values[below + 1]
