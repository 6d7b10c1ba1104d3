"""updatePolicy Reject as rules of the API server: once a run has started, no edit may change what its stages compute.

One rule per outcome field (change_class.py), so that the refusal names the field. A default that is spelt out, or another spelling
of a decimal, is no change. An edit that sets updatePolicy to Restage at the same time says what it wants, and is let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from warpctl.spec.base import UNLIMITED
from warpctl.spec.cel import literal, member
from warpctl.spec.change_class import ChangeClass, change_class, leaf_fields
from warpctl.spec.fields import SpecField, fields
from warpctl.spec.warp_run import WarpRunSpec

_STARTED: Final = (
    "has(oldSelf.status) && has(oldSelf.status.acceptedSpecDigest) && oldSelf.status.acceptedSpecDigest != ''"
)
_IS_REJECT: Final = "has({0}.spec.updatePolicy) && {0}.spec.updatePolicy == 'Reject'"
_FREE: Final = f"!({_STARTED} && {_IS_REJECT.format('oldSelf')} && {_IS_REJECT.format('self')})"
_MESSAGE: Final = (
    "cannot change: the run has started and spec.updatePolicy is Reject; set updatePolicy to Restage in the same edit to "
    "make the changed stages anew, or create another WarpRun"
)
_NONE: Final = {"decimal": "-1e9", "integer": "-1"}
"""Stands for "none" where a field's own values are numbers; texts have 'null'."""


def reject_rules() -> list[dict[str, str]]:
    """Entries of x-kubernetes-validations of the whole object."""
    outcome = [path for path in leaf_fields() if change_class(path) is ChangeClass.OUTCOME]
    same = {path: f"{_text('self', path)} == {_text('oldSelf', path)}" for path in outcome if "[]" not in path}
    for path in dict.fromkeys(path.partition("[]")[0] for path in outcome if "[]" in path):
        same[path] = _same_items(path, [each for each in outcome if each.startswith(f"{path}[].")])
    return [
        {"rule": f"{_FREE} || ({rule})", "message": _MESSAGE, "fieldPath": f".{path}"} for path, rule in same.items()
    ]


def _same_items(path: str, below: list[str]) -> str:
    """Whether two lists of mappings agree in their outcome fields, item by item; an absent list is as good as an empty one.

    Over a list of indices: comparing what `map` returns, or choosing between lists, is taken for endlessly expensive.
    """
    new, old = f"self.{path}", f"oldSelf.{path}"
    equal = " && ".join(
        f"{_item(fields()[each], f'{new}[i]')} == {_item(fields()[each], f'{old}[i]')}" for each in below
    )
    indices = list(range(int(fields()[path].size.rpartition(" ")[2])))
    same = f"{new}.size() == {old}.size() && {indices}.all(i, i >= {new}.size() || ({equal}))"
    if fields()[path].default is None:
        return same
    nothing = " && ".join(f"(!has({each}) || {each}.size() == 0)" for each in (new, old))
    return f"({nothing}) || (has({new}) && has({old}) && {same})"


def _item(field: SpecField, item: str) -> str:
    value = f"{item}.{member(field.name)}"
    if field.name in {"type", "name"}:
        return value
    default = "'null'" if field.default is None else _scalar(field, f"'{field.default.strip(chr(34))}'")
    return f"(has({value}) ? {_scalar(field, value)} : {default})"


def _text(root: str, path: str) -> str:
    """The value of a field as a text, or as the list that it is; with its default where it is absent."""
    field, value = fields()[path], f"{root}.{path}"
    if field.kind.startswith("list of"):
        return value
    optional = [f"{root}.{each}" for each in _optional_parents(path)]
    if not optional and field.default is None and not field.variants:
        return _scalar(field, value)
    own, inherited = _defaults(path)
    is_there = " && ".join(f"has({each})" for each in [*optional, value])
    absent = _constant(field, inherited)
    if optional and own != inherited:
        absent = f"({' && '.join(f'has({each})' for each in optional)} ? {_constant(field, own)} : {absent})"
    return f"({is_there} ? {_scalar(field, value)} : {absent})"


def _scalar(field: SpecField, value: str) -> str:
    if field.is_limit:
        return f"({value} == '{UNLIMITED}' ? {_NONE[field.kind]} : double({value}))"
    return f"double({value})" if field.kind == "decimal" else value


def _constant(field: SpecField, value: Any) -> str:
    if value is None:
        return _NONE.get(field.kind, "'null'")
    return f"double({literal(value)})" if field.kind == "decimal" else literal(value)


def _optional_parents(path: str) -> Iterator[str]:
    parts = path.split(".")
    for depth in range(2, len(parts)):
        parent = ".".join(parts[:depth])
        if fields()[parent].default is not None:
            yield parent


def _info(path: str) -> Any:
    """The pydantic field at a path; None inside a union of models, whose fields are never null."""
    model: Any = WarpRunSpec
    *parents, last = path.removeprefix("spec.").split(".")
    for name in parents:
        model = _field_of(model, name).annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None
    return _field_of(model, last)


def _field_of(model: type[BaseModel], name: str) -> Any:
    return next(info for key, info in model.model_fields.items() if (info.alias or key) == name)


def _defaults(path: str) -> tuple[Any, Any]:
    """Default of a field in a section that is there, and in one that is absent; None: there is none."""
    node: Any = WarpRunSpec
    for name in path.removeprefix("spec.").split("."):
        attribute = re.sub(r"([A-Z])", lambda found: f"_{found[1].lower()}", name)
        if isinstance(node, BaseModel):
            node = getattr(node, attribute, PydanticUndefined)
        elif isinstance(node, type):
            default = _field_of(node, name).get_default(call_default_factory=True)
            node = _field_of(node, name).annotation if default is PydanticUndefined else default
    own = _own_default(path)
    return own, own if node is PydanticUndefined or isinstance(node, type) else node


def _own_default(path: str) -> Any:
    info = _info(path)
    if info is None:  # of some variants only
        return (fields()[path].default or "").strip('"') or None
    return None if info.default is PydanticUndefined else info.default
