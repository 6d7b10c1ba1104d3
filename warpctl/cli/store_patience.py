"""Says that a store does not answer, in one line now and then instead of one for every request that is repeated."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from warpctl.cli.terminal import note

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

SECONDS_BEFORE_FIRST = 2.0
SECONDS_BETWEEN = 10.0


class Patience:
    """A hook for stamina: called before each repetition."""

    def __init__(self) -> None:
        self._told = float("-inf")

    def __call__(self, details: RetryDetails) -> None:
        now = time.monotonic()
        if details.waited_so_far >= SECONDS_BEFORE_FIRST and now - self._told >= SECONDS_BETWEEN:
            self._told = now
            cause = (str(details.caused_by).splitlines() or [""])[0][:120]
            note(f"the store does not answer yet ({type(details.caused_by).__name__}: {cause}); asking again")


def tell_of_retries() -> None:
    """Install the hook for this process."""
    from stamina.instrumentation import set_on_retry_hooks

    set_on_retry_hooks((Patience(),))
