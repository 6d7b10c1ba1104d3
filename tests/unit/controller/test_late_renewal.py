"""A pass that met the moment between a late renewal and its answer is made up for."""

from __future__ import annotations

import io
from typing import Any

import pytest

from warpctl.controller.main import Controller, Options
from warpctl.kube.api import Api
from warpctl.spec.controller_config import ControllerConfig
from warpctl.telemetry.log import logger


@pytest.mark.timeout(20)
def test_a_pass_without_the_lead_is_asked_for_again() -> None:
    no_client: Any = None
    controller = Controller(Api(no_client), ControllerConfig(), Options("me", "here"), logger(io.StringIO()))

    controller._pass(("here", "demo"))

    assert controller.queue.take() == ("here", "demo")
