"""What a merge can make of its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Product:
    """One of the checkpoints, as it is to be stored."""

    what: Literal["merged", "next-init"]
    dtype: Literal["F32", "BF16"]
