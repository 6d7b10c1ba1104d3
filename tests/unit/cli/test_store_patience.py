"""A store that does not answer is told of now and then, not at every repeated request."""

from __future__ import annotations

import pytest
from stamina.instrumentation import RetryDetails

from warpctl.cli.store_patience import Patience


def retry(waited: float) -> RetryDetails:
    return RetryDetails(
        name="x",
        args=(),
        kwargs={},
        retry_num=1,
        wait_for=1.0,
        waited_so_far=waited,
        caused_by=OSError("no route\nmore"),
    )


def test_one_line_in_ten_seconds_and_none_for_a_hiccup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    patience = Patience()
    patience(retry(0.5))
    patience(retry(3.0))
    patience(retry(4.0))
    clock[0] += 11
    patience(retry(15.0))

    assert capsys.readouterr().err == "the store does not answer yet (OSError: no route); asking again\n" * 2
