"""What was seen of the world: commit markers and attempts, keyed by stage key. Every pass sees anew; nothing is remembered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from warpctl.spec.status import Progress


class FailureClass(StrEnum):
    """Why an attempt failed, as far as it decides about the next one."""

    APPLICATION = "Application"
    """The worker failed: counts toward retry.limit."""
    INFRASTRUCTURE = "Infrastructure"
    """The place failed (pre-emption, a killed process, a lost node): counts toward retry.infrastructureLimit."""
    FINAL = "Final"
    """No retry can help (exit code 42)."""
    INTERRUPTED = "Interrupted"
    """It was asked to stop: counts toward nothing."""


class AttemptState(StrEnum):
    ACTIVE = "Active"
    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a stage: a process or a Job that this run's engine started."""

    key: str
    number: int
    attempt_id: str
    state: AttemptState
    started_at: datetime
    ended_at: datetime | None = None
    failure: FailureClass | None = None
    exit_code: int | None = None
    message: str = ""
    is_stopping: bool = False
    """It was asked to leave; of a complete one: what says that it was there is going."""
    is_foreign: bool = False
    """Another run's attempt at the same stage: it costs this run nothing, and is left to that one."""
    gpu_seconds: float = 0.0
    progress: Progress | None = None
    waits_for: str = ""
    """Why it has not begun to work: no node fits, a quota, an image that cannot be pulled; "" once it works."""
    id_prefix: str = ""
    """What the ids begin with under which its processes write, of which `attempt_id` is one; "" when that is the only one."""
    is_shared_out: bool = False
    """Several nodes each did a part of the stage; the one that saw all parts was to publish."""

    def wrote(self, attempt_id: str) -> bool:
        """Whether this is the id of one of its processes."""
        return attempt_id == self.attempt_id or bool(self.id_prefix and attempt_id.startswith(self.id_prefix))


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit marker that was read: what it names, and the parents that it records, by role."""

    manifest_digest: str
    content_digest: str
    attempt_id: str = ""
    parents: Mapping[str, str] = field(default_factory=dict)
    """Role -> content digest."""
    gpu_seconds: float = 0.0
    ended_at: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Root:
    """One artifact that collection must keep for this run: whole, or all but its weights (its record)."""

    kind: str
    key: str
    is_whole: bool = True


@dataclass(frozen=True)
class Observed:
    """Everything that `plan` looks at besides the spec."""

    committed: Mapping[str, Committed] = field(default_factory=dict)
    """By key: markers that are there."""
    broken: frozenset[str] = frozenset()
    """Keys whose marker is there while files that it names are gone, lost or collected: no cache hit may point at them."""
    attempts: Mapping[str, tuple[Attempt, ...]] = field(default_factory=dict)
    """By key, in the order of their numbers."""
    retry_since: datetime | None = None
    """Failures that ended before this instant were pardoned (locally: by a new `warpctl run`)."""
    roots: frozenset[Root] = frozenset()
    """The collection roots (wanted.json) that are in the store."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """By key: why the attempt that was to be started could not be."""
    earlier_gpu_seconds: float = 0.0
    """GPU-seconds of this run's attempts that can no longer be seen."""
    shown_report: str = ""
    """Key of the report that the run's views show."""

    def imported(self) -> dict[str, str]:
        """Content digests by key, for `stages`."""
        return {key: committed.content_digest for key, committed in self.committed.items() if key not in self.broken}

    def is_committed(self, key: str) -> bool:
        """Whether the stage with this key has succeeded and its artifact can be read."""
        return key in self.committed and key not in self.broken

    def active(self) -> list[Attempt]:
        """All attempts that are running, stopping ones included."""
        return [
            attempt
            for attempts in self.attempts.values()
            for attempt in attempts
            if attempt.state is AttemptState.ACTIVE
        ]
