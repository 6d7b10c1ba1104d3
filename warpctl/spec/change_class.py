"""What changing a field means for a run that has started: one table for the planner, `warpctl plan` and docs/spec.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from warpctl.spec.fields import fields, leaf_fields, pattern_of
from warpctl.spec.warp_run import WarpRun

__all__ = ["CHANGE_CLASSES", "ChangeClass", "FieldChange", "change_class", "differences", "leaf_fields"]


class ChangeClass(StrEnum):
    """How far the change of a field reaches.

    Live acts at once. Placement acts from each stage's next attempt on. Extend adds stages and reruns none. Outcome
    changes the keys of stages: they are made anew.
    """

    LIVE = "Live"
    PLACEMENT = "Placement"
    EXTEND = "Extend"
    OUTCOME = "Outcome"


CHANGE_CLASSES: Final[dict[str, ChangeClass]] = {
    # A path covers its whole subtree; the longest path that covers a field decides.
    "spec.algorithmVersion": ChangeClass.OUTCOME,
    "spec.storage": ChangeClass.PLACEMENT,
    "spec.models": ChangeClass.OUTCOME,
    "spec.models.rewards[].url": ChangeClass.PLACEMENT,
    "spec.models.rewards[].timeoutSeconds": ChangeClass.PLACEMENT,
    "spec.models.heldOutRewards[].url": ChangeClass.PLACEMENT,
    "spec.models.heldOutRewards[].timeoutSeconds": ChangeClass.PLACEMENT,
    "spec.prompts": ChangeClass.OUTCOME,
    "spec.iterations": ChangeClass.EXTEND,
    "spec.rlRuns": ChangeClass.OUTCOME,
    "spec.seed": ChangeClass.OUTCOME,
    "spec.training": ChangeClass.OUTCOME,
    "spec.training.microBatchSize": ChangeClass.PLACEMENT,
    "spec.training.resumeState": ChangeClass.PLACEMENT,
    "spec.training.evaluation": ChangeClass.PLACEMENT,
    "spec.merge": ChangeClass.OUTCOME,
    "spec.evaluation": ChangeClass.OUTCOME,
    "spec.evaluation.litiRates": ChangeClass.EXTEND,
    "spec.evaluation.confidenceLevel": ChangeClass.LIVE,
    "spec.evaluation.hypervolume": ChangeClass.LIVE,
    "spec.controls": ChangeClass.EXTEND,
    "spec.compute": ChangeClass.PLACEMENT,
    "spec.tracking": ChangeClass.PLACEMENT,
    "spec.parallelism": ChangeClass.LIVE,
    "spec.retry": ChangeClass.LIVE,
    "spec.retention": ChangeClass.LIVE,
    "spec.budget": ChangeClass.LIVE,
    "spec.suspend": ChangeClass.LIVE,
    "spec.updatePolicy": ChangeClass.LIVE,
    "spec.deletionPolicy": ChangeClass.LIVE,
}


def covering_entry(path: str) -> str | None:
    """The entry of the table that decides a field's class: the longest that covers it."""
    pattern = pattern_of(path)
    covering = [entry for entry in CHANGE_CLASSES if re.match(rf"{re.escape(entry)}($|[.\[])", pattern)]
    return max(covering, key=len, default=None)


def change_class(path: str) -> ChangeClass:
    """Class of a field, such as spec.merge.litiRate or spec.models.rewards[0].weight; KeyError for an unknown path."""
    entry = covering_entry(path)
    if entry is None:
        raise KeyError(path)
    return CHANGE_CLASSES[entry]


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that differs; `old` and `new` are JSON values, decimals as text, None where the field is absent."""

    path: str
    old: Any
    new: Any
    change_class: ChangeClass


def differences(old: WarpRun, new: WarpRun) -> tuple[FieldChange, ...]:
    """The fields of `spec` that differ, in the order of the models; spelling out a default is no difference.

    Lists of plain values (steps, LITI rates, controls) and mappings of labels are compared as a whole, lists of
    mappings (rewards, tolerations) item by item.
    """
    before, after = _leaves(old), _leaves(new)
    paths = dict.fromkeys([*before, *after])
    order = {path: rank for rank, path in enumerate(fields())}
    changed = [path for path in paths if before.get(path) != after.get(path)]
    changed.sort(key=lambda path: _rank(path, order))
    return tuple(FieldChange(path, before.get(path), after.get(path), change_class(path)) for path in changed)


def _rank(path: str, order: dict[str, int]) -> tuple[int, ...]:
    pattern = pattern_of(path)
    head = pattern.partition("[]")[0]
    indices = tuple(int(index) for index in re.findall(r"\[(\d+)\]", path))
    return (order[head], *indices, order[pattern])


def _leaves(run: WarpRun) -> dict[str, Any]:
    found: dict[str, Any] = {}
    leaf = leaf_fields()

    def walk(value: Any, path: str) -> None:
        pattern = pattern_of(path)
        if pattern in leaf:
            found[path] = value
        elif isinstance(value, dict):
            for key, each in value.items():
                walk(each, f"{path}.{key}")
        elif isinstance(value, list):
            for index, each in enumerate(value):
                walk(each, f"{path}[{index}]")

    walk(run.spec.model_dump(mode="json", by_alias=True), "spec")
    return found
