"""What may be done: the whole vocabulary between the planner and an executor."""

from __future__ import annotations

from dataclasses import dataclass

from warpctl.plan.observed import Attempt, Root
from warpctl.plan.stages import Stage
from warpctl.spec.stage_input import InputArtifact, Task


@dataclass(frozen=True, slots=True)
class WriteRoots:
    """Write wanted.json: before the first attempt of a generation, so that collection never sweeps what it will need."""

    roots: tuple[Root, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """Create attempt `number` of `stage`, its inputs pinned by digest. `task` is the stage's, less what no longer exists."""

    stage: Stage
    number: int
    inputs: tuple[InputArtifact, ...]
    task: Task


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask an attempt to save and leave; repeated until it has gone."""

    attempt: Attempt
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove a marker that points at files which are gone, so that the stage can be made again."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class Collect:
    """Sweep the weights of artifacts that the retention policy gives up, where no other run wants them."""

    roots: tuple[Root, ...]


@dataclass(frozen=True, slots=True)
class Show:
    """Let the run's views show this report."""

    stage: Stage


Action = WriteRoots | Start | Stop | Forget | Collect | Show
