"""How often a run is looked at for its progress alone."""

from __future__ import annotations

from typing import Any

import pytest

from warpctl.controller.reconciler import Reconciler
from warpctl.spec.controller_config import ControllerConfig


@pytest.mark.parametrize(("runs", "seconds"), [(1, 30.0), (300, 30.0), (301, 30.1), (1000, 100.0)])
def test_the_more_runs_the_more_seldom_each(runs: int, seconds: float) -> None:
    """30 s, but never more than 10 passes a second over all of them."""
    unused: Any = None
    reconciler = Reconciler(unused, unused, unused, ControllerConfig(), unused)
    reconciler._driven = dict.fromkeys(map(str, range(runs)), unused)

    assert reconciler._progress_pause() == pytest.approx(seconds)
