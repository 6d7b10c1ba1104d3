"""Every field of a WarpRun as data, read from the models: the one list behind errors, change classes and docs/spec.md.

A path is dotted and camelCase, as a user writes it; `[]` stands for any item of a list: spec.models.rewards[].weight.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, StringConstraints, WrapValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from warpctl.spec.base import SpecModel
from warpctl.spec.warp_run import WarpRun


@dataclass(frozen=True, slots=True)
class SpecField:
    """One field.

    `kind` is what a user must write ("decimal", "integer", "list of decimals", "mapping", ...), `range` an interval such
    as "[0, 1]" or "" (of each item, in a list), `size` the allowed number of items, `allowed` the values of an
    enumeration, `default` its YAML text or None when the field is required, `variants` the `type`s of a list item or
    mapping that have this field (empty: all), `required_in` those of them that require it although others have a
    default, `pattern` the regular expression of a text.
    """

    path: str
    kind: str
    doc: str
    default: str | None
    range: str = ""
    size: str = ""
    allowed: tuple[str, ...] = ()
    pattern: str = ""
    variants: tuple[str, ...] = ()
    required_in: tuple[str, ...] = ()
    is_section: bool = False
    is_limit: bool = False
    """A decimal that may also be the word Unlimited."""

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2].removesuffix("[]")

    @property
    def section(self) -> str:
        """Path of the mapping that holds it."""
        return self.path.rpartition(".")[0]


@cache
def fields() -> dict[str, SpecField]:
    """All fields of a WarpRun by path, sections included, in the order of the models."""
    found: dict[str, SpecField] = {}
    for field in _walk(WarpRun, "", ()):
        known = found.get(field.path)
        found[field.path] = _join(known, field) if known else field
    return found


def _join(known: SpecField, other: SpecField) -> SpecField:
    """The same field of two variants of one mapping."""
    doc = known.doc if other.doc in known.doc else f"{known.doc} {', '.join(other.variants)}: {other.doc}"
    stricter = other.variants if known.default is not None and other.default is None else ()
    return replace(
        known,
        doc=doc,
        allowed=known.allowed + tuple(value for value in other.allowed if value not in known.allowed),
        variants=known.variants + other.variants,
        required_in=known.required_in + stricter,
    )


def pattern_of(path: str) -> str:
    """The field that a path with indices belongs to: spec.controls[1] is an item of spec.controls[]."""
    return re.sub(r"\[\d+\]", "[]", path)


def leaf_fields() -> dict[str, SpecField]:
    """The fields below `spec` that hold a value, not further fields."""
    return {path: field for path, field in fields().items() if path.startswith("spec.") and not field.is_section}


def _walk(model: type[BaseModel], prefix: str, variants: tuple[str, ...]) -> Iterator[SpecField]:
    for name, info in model.model_fields.items():
        path = f"{prefix}{info.alias or name}"
        inner, metadata = _unwrap(info.annotation, list(info.metadata))
        sections = [each for each in _alternatives(inner) if _is_model(each)]
        is_list = typing.get_origin(inner) is tuple
        if is_list:
            item = typing.get_args(inner)[0]
            sections = [each for each in _alternatives(_unwrap(item, [])[0]) if _is_model(each)]
        yield _describe(path, info, inner, metadata, variants=variants, is_section=bool(sections))
        for section in sections:
            names = (_literal(section.model_fields["type"].annotation)[0],) if len(sections) > 1 else variants
            yield from _walk(section, f"{path}{'[]' if is_list else ''}.", names)


def _describe(
    path: str, info: FieldInfo, inner: Any, metadata: list[Any], *, variants: tuple[str, ...], is_section: bool
) -> SpecField:
    constraints = metadata
    size = ""
    if typing.get_origin(inner) is tuple or typing.get_origin(inner) is dict:
        size = _size(metadata)
        inner_item, constraints = _unwrap(typing.get_args(inner)[0], [])
    else:
        inner_item = inner
    return SpecField(
        path=path,
        kind=_kind(inner, is_section=is_section),
        doc=" ".join((info.description or "").split()),
        default=_default(info),
        range=_range(constraints),
        size=size,
        allowed=_allowed(inner_item),
        pattern=_pattern(constraints),
        variants=variants,
        is_section=is_section,
        is_limit=any(isinstance(each, WrapValidator) for each in metadata),
    )


def _unwrap(annotation: Any, metadata: list[Any]) -> tuple[Any, list[Any]]:
    """The annotation without Annotated and Optional, and all the constraints that were met on the way."""
    if typing.get_origin(annotation) is Annotated:
        inner, *extra = typing.get_args(annotation)
        flat = [each for item in extra for each in (item.metadata if isinstance(item, FieldInfo) else [item])]
        return _unwrap(inner, metadata + flat)
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        some = [each for each in typing.get_args(annotation) if each is not type(None)]
        if len(some) == 1:
            return _unwrap(some[0], metadata)
    return annotation, metadata


def _alternatives(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return list(typing.get_args(annotation))
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _literal(annotation: Any) -> tuple[str, ...]:
    return tuple(map(str, typing.get_args(annotation))) if typing.get_origin(annotation) is Literal else ()


def _allowed(annotation: Any) -> tuple[str, ...]:
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return tuple(member.value for member in annotation)
    return _literal(annotation)


def _kind(inner: Any, *, is_section: bool) -> str:
    origin, args = typing.get_origin(inner), typing.get_args(inner)
    if origin is tuple:
        return (
            "list of mappings" if is_section else f"list of {_plural(_kind(_unwrap(args[0], [])[0], is_section=False))}"
        )
    if is_section:
        return "mapping"
    if origin is dict:
        return "mapping of texts"
    if _allowed(inner):
        return "enumeration"
    return {Decimal: "decimal", int: "integer", bool: "boolean", str: "text"}.get(inner, "mapping")


def _plural(kind: str) -> str:
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


def _range(constraints: list[Any]) -> str:
    low = next((each for each in constraints if isinstance(each, (Ge, Gt))), None)
    high = next((each for each in constraints if isinstance(each, (Le, Lt))), None)
    if low is None and high is None:
        return ""
    left = "(-inf" if low is None else f"[{low.ge}" if isinstance(low, Ge) else f"({low.gt}"
    right = "inf)" if high is None else f"{high.le}]" if isinstance(high, Le) else f"{high.lt})"
    return f"{left}, {right}"


def _pattern(constraints: list[Any]) -> str:
    patterns = (each.pattern for each in constraints if isinstance(each, StringConstraints))
    return next((pattern for pattern in patterns if isinstance(pattern, str)), "")


def _size(constraints: list[Any]) -> str:
    low = next((each.min_length for each in constraints if isinstance(each, MinLen)), 0)
    high = next((each.max_length for each in constraints if isinstance(each, MaxLen)), None)
    return f"{low} to {high}" if high is not None else ""


def _default(info: FieldInfo) -> str | None:
    default = info.get_default(call_default_factory=True, validated_data={})
    return None if default is PydanticUndefined else _yaml_text(default)


def _yaml_text(value: Any) -> str:
    """How a user would write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Decimal):
        return f'"{value:e}"' if 0 < abs(value) < Decimal("0.001") else f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml_text, value))}]"
    if isinstance(value, SpecModel):
        given = value.model_dump(by_alias=True, mode="json", exclude_defaults=True)
        return f"{{{', '.join(f'{key}: {each}' for key, each in given.items())}}}"
    if isinstance(value, dict):
        return "{}"
    text = str(value)
    return f'"{text}"' if isinstance(value, str) and (not text or text.isdigit()) else text
