"""status of a WarpRun in a cluster: small, bounded, for people and health checks; the store has the details.

Numbers with a fraction are strings: the API has no floats.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from warpctl.spec.base import SpecModel

MAX_STAGES = 64
MAX_MESSAGE = 512

Text = Annotated[str, StringConstraints(max_length=MAX_MESSAGE)]
Short = Annotated[str, StringConstraints(max_length=256)]


class ClusterCondition(SpecModel):
    """As metav1.Condition."""

    type: Short
    """Ready, Reconciling, Stalled, Suspended or Succeeded; all five are there from the first visit."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Short
    """A CamelCase constant for programs."""
    message: Text
    """A sentence for people."""
    observed_generation: int
    """The generation of the spec that it speaks of."""
    last_transition_time: str
    """When `status` last changed."""


class ClusterStage(SpecModel):
    """One stage that is at work or in trouble."""

    id: Short
    """Such as rl/1/2."""
    state: Short
    """Queued, Running, Retrying or Stalled."""
    attempts: int = 0
    """Attempts seen."""
    progress: Short = ""
    """Such as `step 412/600`."""
    message: Text = ""
    """Why it waits, or why it failed."""


class Best(SpecModel):
    """The best point within the KL budget so far."""

    point: Short
    """Iteration and LITI rate."""
    kl: Short
    """KL to SFT, nats a completion."""
    reward: Short
    """Reward with half of its interval."""
    reward_name: Short = ""
    """Which reward."""


class ClusterStatus(SpecModel):
    """All of it."""

    observed_generation: int = 0
    """The generation of the spec that this status speaks of."""
    accepted_spec_digest: Short = ""
    """Digest of the accepted spec."""
    conditions: Annotated[tuple[ClusterCondition, ...], Field(max_length=16)] = ()
    """Ready, Reconciling, Stalled, Suspended, Succeeded."""
    iteration: int = 0
    """Iterations merged so far."""
    iterations: int = 0
    """Iterations wanted."""
    iteration_text: Short = ""
    """iteration/iterations."""
    stages_succeeded: int = 0
    """Stages published."""
    stages_total: int = 0
    """Stages of the run, as far as known."""
    stages_text: Short = ""
    """stagesSucceeded/stagesTotal."""
    stages: Annotated[tuple[ClusterStage, ...], Field(max_length=MAX_STAGES)] = ()
    """Stages at work or in trouble, at most 64 of them."""
    retries: int = 0
    """Attempts that failed by themselves."""
    gpu_hours: Short = "0"
    """GPU-hours of all attempts."""
    ended_gpu_seconds: Short = "0"
    """GPU-seconds of attempts whose Jobs have gone."""
    best: Best | None = None
    """The best point of the newest report."""
    report: Short = ""
    """Stage key of the newest report."""
    handled: Short = ""
    """The verbs (annotations) that this status has seen."""
    ignored: Annotated[tuple[Text, ...], Field(max_length=8)] = ()
    """Annotations of ours whose values mean nothing, each with what it should be."""
