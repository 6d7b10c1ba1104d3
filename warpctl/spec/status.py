"""What a run says of itself: conditions, stages, counters. A summary of what was observed, never an input of a decision."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from warpctl.spec.base import SpecModel


class StageState(StrEnum):
    """State of one stage, as users see it."""

    PENDING = "Pending"
    """Its key is known after import."""
    WAITING = "Waiting"
    """Its inputs are not all published."""
    QUEUED = "Queued"
    """It could start, and waits for a free place; in a cluster perhaps with a Job that has no node yet."""
    RUNNING = "Running"
    RETRYING = "Retrying"
    """An attempt failed; the next one starts after a pause."""
    STALLED = "Stalled"
    """It failed for good; a new `warpctl run` tries again."""
    SUCCEEDED = "Succeeded"
    UNNEEDED = "Unneeded"
    """Nothing unfinished needs it (an intermediate that was collected)."""


class Progress(SpecModel):
    """How far an attempt is, as its worker says."""

    done: int
    total: int
    unit: str
    done_at_start: int = 0
    """Of `done`, what earlier attempts did (resumed steps, cached points)."""
    elapsed_seconds: float = 0.0
    """Seconds of this attempt."""
    fields: dict[str, str | float] = Field(default_factory=dict)

    @property
    def counted(self) -> str:
        """`step 412/600`."""
        return f"{self.unit.removesuffix('s')} {self.done}/{self.total}"


class StageStatus(SpecModel):
    """One stage."""

    id: str
    kind: str
    key: str = ""
    iteration: int = 0
    member: int = 0
    control: str = ""
    state: StageState
    attempts: int = 0
    """Attempts seen, finished or not."""
    cached: bool = False
    """It was published before this engine saw an attempt of it."""
    message: str = ""
    hint: str = ""
    attempt_id: str = ""
    """The newest attempt."""
    progress: Progress | None = None
    started_at: str = ""
    ended_at: str = ""
    retry_at: str = ""
    """When the next attempt may start, while it is Retrying."""


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(SpecModel):
    """As in Kubernetes: a fact with a reason that a program reads and a sentence that a person reads."""

    type: str
    status: ConditionStatus
    reason: str
    message: str


READY, RECONCILING, STALLED, SUSPENDED, SUCCEEDED = "Ready", "Reconciling", "Stalled", "Suspended", "Succeeded"


class RunStatus(SpecModel):
    """The whole run."""

    namespace: str
    name: str
    conditions: tuple[Condition, ...]
    stages: tuple[StageStatus, ...]
    iteration: int
    """Iterations merged so far."""
    iterations: int
    stages_succeeded: int
    stages_total: int
    retries: int = 0
    """Attempts that failed by themselves; those that were asked to stop do not count."""
    gpu_hours: float = 0.0

    def condition(self, kind: str) -> Condition:
        """The condition of this type; all five are present from the first visit."""
        return next(condition for condition in self.conditions if condition.type == kind)

    def is_true(self, kind: str) -> bool:
        """Whether the condition of this type is True."""
        return self.condition(kind).status is ConditionStatus.TRUE
