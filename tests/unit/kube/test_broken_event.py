"""A watch whose bytes stop being events is a broken connection, never a crash of its reader.

Seen in the wild: `SSLSocket.shutdown` under a reader drops the TLS layer, and what was still in flight is handed on undeciphered.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from warpctl.kube.api import Api
from warpctl.kube.errors import ClusterUnavailableError
from warpctl.kube.resources import JOBS

EVENT = b'{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"7"}}}\n'


class Broken:
    """A streamed answer that ends in nonsense."""

    status = 200

    def __init__(self, rest: bytes) -> None:
        self.rest = rest

    def stream(self, **_: object) -> Iterator[bytes]:
        yield EVENT
        yield self.rest

    def close(self) -> None: ...


@pytest.mark.parametrize("rest", [b"\x17\x03\x03\x00\x87\n", b'{"type":"ADDED","obj', b'{"type":"A\x00D"}\n'])
def test_bytes_that_are_no_event_are_a_connection_that_broke(rest: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    client: Any = SimpleNamespace(rest_client=SimpleNamespace(pool_manager={"idle": "connection"}))
    api = Api(client)
    monkeypatch.setattr(api, "_send", lambda *_, **__: Broken(rest))
    events = api.watch(JOBS, "here", labels="", version="1", seconds=1, silence_seconds=1)

    assert next(events)[1]["metadata"]["name"] == "a"
    with pytest.raises(ClusterUnavailableError, match="in the middle of an event"):
        next(events)
