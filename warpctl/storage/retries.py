"""How often and how long a store is asked again; transient errors only, everything else is final at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import stamina


@dataclass(frozen=True, slots=True)
class Retries:
    """One policy for every request: exponential backoff with jitter until `attempts` or `total_seconds` are used up."""

    attempts: int = 24
    wait_initial_seconds: float = 0.25
    wait_max_seconds: float = 20.0
    total_seconds: float = 180.0
    read_timeout_seconds: float = 60.0
    """Silence on an open connection for this long counts as a reset."""

    def context(self, is_transient: Callable[[Exception], bool]) -> Any:
        """Loop over it (`for` or `async for`) and run the request within `with attempt:`."""
        return stamina.retry_context(
            on=is_transient,
            attempts=self.attempts,
            timeout=self.total_seconds,
            wait_initial=self.wait_initial_seconds,
            wait_max=self.wait_max_seconds,
            wait_jitter=self.wait_initial_seconds,
        )
