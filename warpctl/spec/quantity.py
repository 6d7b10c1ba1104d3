"""Kubernetes quantities: "4", "500m", "64Gi"."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final

from pydantic import StringConstraints

QUANTITY_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
Quantity = Annotated[str, StringConstraints(max_length=32, pattern=QUANTITY_PATTERN)]

_FACTORS: Final = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGT", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGT", start=1)},
}


def amount(quantity: str) -> Decimal:
    """The number that a quantity means: "500m" is 0.5, "1Ki" is 1024."""
    number = quantity.rstrip("kmKMGTi")
    return Decimal(number) * _FACTORS[quantity[len(number) :]]
