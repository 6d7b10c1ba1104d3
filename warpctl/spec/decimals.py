"""Decimals are spelled in one way, so that equal ones have equal keys."""

from __future__ import annotations

from decimal import Decimal


def decimal_text(value: Decimal) -> str:
    """The one spelling of a decimal: no exponent, no trailing zeros ("1e-6" and "0.0000010" are both "0.000001").

    Exact for every digit: `Decimal.normalize` would round to the 28 digits of the current context.
    """
    if value == 0:
        return "0"
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
