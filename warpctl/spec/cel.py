"""Rules that an API server checks (CEL), each written beside the Python validator that says the same.

A rule of a model stands in its class attribute `cel`. In its text `{name}` is that field's value, its default where it is absent;
`{+name}` says whether it was given. Null never gets here: an API server takes it for absent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel

_RESERVED: Final = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "namespace",
        "null",
        "package",
        "return",
        "true",
        "var",
        "void",
        "while",
    ]
)
"""Words of CEL: an API server knows a field of such a name by another one."""


@dataclass(frozen=True, slots=True)
class CelRule:
    """One rule: `rule` must be true, else `message` is said of the field `at`."""

    at: str
    rule: str
    message: str


def expand(rule: CelRule, model: type[BaseModel]) -> dict[str, str]:
    """The rule as an entry of x-kubernetes-validations of the model's schema."""
    fields = {info.alias or name: info for name, info in model.model_fields.items()}

    def value(match: re.Match[str]) -> str:
        name = match[2]
        if match[1]:
            return f"has(self.{name})"
        return f"(has(self.{name}) ? self.{name} : {literal(fields[name].default)})"

    text = re.sub(r"\{(\+?)(\w+)\}", value, rule.rule)
    return {"rule": text, "message": rule.message, "fieldPath": f".{rule.at}"}


def member(name: str) -> str:
    """A field's name as CEL has it."""
    return f"__{name}__" if name in _RESERVED else name


def literal(value: Any) -> str:
    """A default as CEL; decimals are texts in the API."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (StrEnum, str)):
        return f"'{value}'"
    if isinstance(value, Decimal):
        return f"'{value:f}'"
    raise TypeError(f"{value!r} has no literal in CEL")


def in_interval(value: str, interval: str) -> str:
    """Whether a number lies in an interval such as "(0, 1]" or "[0, inf)"; `value` is CEL for a double."""
    low, high = (part.strip() for part in interval[1:-1].split(","))
    parts = []
    if low != "-inf":
        parts.append(f"{value} {'>=' if interval[0] == '[' else '>'} {float(low)}")
    if high != "inf":
        parts.append(f"{value} {'<=' if interval[-1] == ']' else '<'} {float(high)}")
    return " && ".join(parts)
