"""A controller one of whose threads dies leaves, and says that it failed, instead of going on blind."""

from __future__ import annotations

import io
from typing import Any

import pytest

from warpctl.controller.main import Controller, Options
from warpctl.kube.api import Api
from warpctl.spec.controller_config import ControllerConfig
from warpctl.telemetry.log import logger


@pytest.mark.timeout(60)
def test_a_controller_whose_reader_dies_leaves() -> None:
    no_client: Any = None  # every request is a bug then, not an answer

    said = io.StringIO()
    controller = Controller(Api(no_client), ControllerConfig(), Options("me", "here"), logger(said))

    assert controller.run() is False
    assert "thread died thread=warpruns\nTraceback" in said.getvalue()
    assert controller.stop.is_set()
