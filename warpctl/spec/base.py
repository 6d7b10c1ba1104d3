"""What all spec models share: frozen, camelCase in YAML, unknown keys refused, decimals quoted."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

DECIMAL_PATTERN = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"


class SpecModel(BaseModel):
    """Base of every model of a WarpRun."""

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
    if not isinstance(value, str) or not re.match(DECIMAL_PATTERN, value):
        raise PydanticCustomError("decimal", 'must be a quoted decimal such as "0.01" or "1e-6"')
    try:
        return Decimal(value)
    except InvalidOperation as error:  # the pattern should have caught it
        raise PydanticCustomError("decimal", 'must be a quoted decimal such as "0.01" or "1e-6"') from error


def decimal_text(value: Decimal) -> str:
    """The one spelling of a decimal: no exponent, no trailing zeros ("1e-6" and "0.0000010" are both "0.000001")."""
    if value == 0:
        return "0"
    return f"{value.normalize():f}"


DecimalText = Annotated[
    Decimal,
    BeforeValidator(_read_decimal),
    PlainSerializer(decimal_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DECIMAL_PATTERN, "maxLength": 32}),
]
"""A decimal number, quoted in YAML so that no YAML or JSON library rounds it."""
