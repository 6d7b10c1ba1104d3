"""Kubernetes quantities as numbers."""

from __future__ import annotations

from decimal import Decimal

import pytest

from warpctl.spec.compute import StageCompute, num_cores
from warpctl.spec.quantity import amount


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("4", "4"),
        ("500m", "0.5"),
        ("1.5", "1.5"),
        ("2k", "2000"),
        ("1Ki", "1024"),
        ("64Gi", str(64 * 1024**3)),
        ("1.5Ti", str(3 * 1024**4 // 2)),
        ("3T", str(3 * 10**12)),
    ],
)
def test_a_quantity_is_an_exact_number(text, number):
    assert amount(text) == Decimal(number)


def test_cores_are_whole_and_at_least_one_however_they_are_written():
    assert num_cores(StageCompute(cpu="1Ki")) == 1024
    assert num_cores(StageCompute(cpu="1001m")) == 2
    assert num_cores(StageCompute(cpu="1m")) == 1
    assert num_cores(StageCompute(), "2500m") == 3
