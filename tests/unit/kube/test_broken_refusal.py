"""A refusal whose words break off on the way is still that refusal."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import urllib3

from warpctl.kube.api import Api
from warpctl.kube.errors import ClusterError
from warpctl.kube.resources import JOBS


class BrokenOff:
    """An answer whose body never comes."""

    status = 403
    headers: ClassVar[dict[str, str]] = {}

    @property
    def data(self) -> bytes:
        raise urllib3.exceptions.ProtocolError("Connection broken")


class Client:
    """As much of an ApiClient as a request asks for."""

    def __init__(self) -> None:
        self.configuration = self.rest_client = self.pool_manager = self
        self.host = "https://server"

    def update_params_for_auth(self, *_: object) -> None: ...

    def request(self, *_: object, **__: object) -> BrokenOff:
        return BrokenOff()


def test_a_watch_that_is_refused_is_no_crash_of_its_reader() -> None:
    client: Any = Client()
    events = Api(client).watch(JOBS, "here", labels="", version="1", seconds=1, silence_seconds=1)

    with pytest.raises(ClusterError) as error:
        next(events)

    assert error.value.is_forbidden
    assert "HTTP 403" in error.value.message
