"""Closing an Api wakes its watches, and takes no offence at one that ends at the same moment."""

from __future__ import annotations

from typing import Any

import pytest

from warpctl.kube.api import Api


class Ending:
    """A response whose reader has just closed it."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.asked = 0

    def shutdown(self) -> None:
        self.asked += 1
        raise self.error


@pytest.mark.parametrize(
    "error", [OSError(9, "Bad file descriptor"), ValueError("closed"), RuntimeError("not checked out")]
)
def test_a_watch_that_is_ending_by_itself_is_no_error(error: Exception) -> None:
    client: Any = None
    api, response = Api(client), Ending(error)
    other = Ending(error)
    api._open |= {response, other}

    api.close()

    assert (response.asked, other.asked) == (1, 1)
