"""What all spec models share: frozen, camelCase in YAML, unknown keys refused, decimals quoted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from annotated_types import Gt
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, PydanticCustomError

from warpctl.spec.cel import CelRule
from warpctl.spec.decimals import decimal_text

DECIMAL_PATTERN = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?$"
DECIMAL_MAX_LENGTH = 32
UNLIMITED = "Unlimited"
DISAGREEMENT = "disagreement"


class SpecModel(BaseModel):
    """Base of every model of a WarpRun."""

    cel: ClassVar[tuple[CelRule, ...]] = ()
    """What its validator says of several fields, in the words of an API server."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


def _read_decimal(value: Any) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise PydanticCustomError(
            "unquoted_decimal", 'must be a quoted decimal; write "{text}"', {"text": f"{value:.12g}"}
        )
    # fullmatch, because `$` alone would let a final newline through
    if not isinstance(value, str) or len(value) > DECIMAL_MAX_LENGTH or not re.fullmatch(DECIMAL_PATTERN, value):
        raise PydanticCustomError("decimal", 'must be a quoted decimal such as "0.01" or "1e-6"')
    return Decimal(value)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Fields that are each fine but do not fit together.

    `at` is the location (camelCase names and indices, relative to the model) that the error points to; `fields` are
    the locations of all fields that take part in it.
    """

    at: tuple[str | int, ...]
    message: str
    value: Any
    fields: tuple[tuple[str | int, ...], ...]


def refuse(model: str, disagreements: list[Disagreement]) -> None:
    """Raise all disagreements as one validation error, each at its own field; nothing happens when there are none."""
    if not disagreements:
        return
    raise ValidationError.from_exception_data(
        model,
        [
            InitErrorDetails(
                type=PydanticCustomError(DISAGREEMENT, "{problem}", {"problem": each.message, "fields": each.fields}),
                loc=each.at,
                input=each.value,
            )
            for each in disagreements
        ],
    )


DecimalText = Annotated[
    Decimal,
    BeforeValidator(_read_decimal),
    PlainSerializer(decimal_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DECIMAL_PATTERN, "maxLength": DECIMAL_MAX_LENGTH}),
]
"""A decimal number, quoted in YAML so that no YAML or JSON library rounds it."""


def _read_limit(value: Any, read: ValidatorFunctionWrapHandler) -> Decimal | None:
    if value is None:
        raise PydanticCustomError("decimal", "must be a quoted decimal, or Unlimited")
    return None if value == UNLIMITED else read(value)


def _limit_text(value: Decimal | None) -> str:
    return UNLIMITED if value is None else decimal_text(value)


Limit = Annotated[
    Annotated[DecimalText, Gt(0)] | None,
    WrapValidator(_read_limit),
    PlainSerializer(_limit_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{UNLIMITED}$|{DECIMAL_PATTERN}", "maxLength": DECIMAL_MAX_LENGTH}),
]
"""A decimal above 0, or Unlimited, which is None in Python.

A word rather than null: an API server drops null, and a merge patch takes it for "remove this field", which is its default.
"""
