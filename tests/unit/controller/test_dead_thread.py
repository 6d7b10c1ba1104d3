"""A controller one of whose threads dies leaves, and says that it failed, instead of going on blind."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from warpctl.controller.main import Controller, Options
from warpctl.kube.api import Api
from warpctl.spec.controller_config import ControllerConfig


@pytest.mark.timeout(60)
def test_a_controller_whose_reader_dies_leaves() -> None:
    no_client: Any = None  # every request is a bug then, not an answer

    controller = Controller(Api(no_client), ControllerConfig(), Options("me", "here"), structlog.get_logger())

    assert controller.run() is False
    assert controller.stop.is_set()
