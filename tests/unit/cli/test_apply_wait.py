"""When `apply --wait` has waited long enough."""

from __future__ import annotations

from typing import Any

import pytest

from warpctl.cli.apply import _has_succeeded
from warpctl.errors import WarpctlError


def a_run(*true: str) -> dict[str, Any]:
    kinds = ("Ready", "Reconciling", "Stalled", "Suspended", "Succeeded")
    conditions = [{"type": kind, "status": str(kind in true), "message": "why"} for kind in kinds]
    return {"metadata": {"name": "demo"}, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("true", "is_over"),
    [(("Ready", "Succeeded"), True), (("Reconciling",), False), (("Reconciling", "Stalled"), False), ((), False)],
)
def test_it_waits_while_something_goes_on_even_beside_a_stage_that_has_failed(true, is_over) -> None:
    assert _has_succeeded(a_run(*true)) is is_over


@pytest.mark.parametrize(("kind", "said"), [("Stalled", "has stalled: why"), ("Suspended", "is suspended: why")])
def test_a_run_that_goes_nowhere_by_itself_is_an_error(kind, said) -> None:
    with pytest.raises(WarpctlError, match=f"demo {said}"):
        _has_succeeded(a_run(kind))
