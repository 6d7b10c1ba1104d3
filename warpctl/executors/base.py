"""The port between the engine and whatever runs workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from warpctl.errors import WarpctlError
from warpctl.plan.actions import Start
from warpctl.plan.observed import Attempt


class StartRefusedError(WarpctlError):
    """This attempt may not be made (a quota, an admission policy); others of the run may."""


class Executor(Protocol):
    """Starts, stops and observes the attempts of one run. Every method may be repeated at any time."""

    def attempts(self) -> Mapping[str, tuple[Attempt, ...]]:
        """All attempts of the run that can be seen, by stage key, in the order of their numbers."""
        ...

    def start(self, start: Start) -> bool:
        """Start an attempt; False when there is no free place now, or somebody else has just started it.

        StartRefusedError says why it may not be.
        """
        ...

    def stop(self, attempt: Attempt, reason: str) -> None:
        """Ask an attempt to save and leave; repeated calls make it more urgent. Returns at once."""
        ...

    def forget(self, key: str) -> None:
        """Forget finished attempts of a stage whose artifact is gone: what they say of it is no longer true."""
        ...
