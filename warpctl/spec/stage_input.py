"""What one worker is told: its stage, its attempt, its inputs by digest, its task.

A StageInput travels as JSON in the environment variable WARPCTL_STAGE_INPUT (at most 32 KiB: references only, no secrets).
The planner writes it, a worker reads it; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from warpctl.errors import FinalError
from warpctl.spec.base import DecimalText, SpecModel
from warpctl.spec.merge_method import Granularity, MergeMethod, SlerpOrder
from warpctl.spec.models import Prompts, Reward
from warpctl.spec.tracking import Tracking
from warpctl.spec.training import ServingCopy, Training
from warpctl.spec.warp_run import Hypervolume

ENVIRONMENT_VARIABLE = "WARPCTL_STAGE_INPUT"
MAX_BYTES = 32 * 1024


class StageKind(StrEnum):
    IMPORT = "import"
    RL = "rl"
    MERGE = "merge"
    EVALUATE = "evaluate"
    REPORT = "report"


class InputArtifact(SpecModel):
    """One committed artifact that the stage reads, pinned by the digest of its manifest.

    Roles: `sft`, `init`, `member/<m>`, `merge`, `control`, `reward/<name>`, `prompts`, `prompts/evaluation`,
    `evaluate/<stage id>`.
    """

    role: str
    kind: StageKind
    key: str
    manifest_digest: str
    content_digest: str = ""


class ImportTask(SpecModel):
    """Copy a model or a prompt set into the store."""

    kind: Literal["import"] = "import"
    what: Literal["Model", "Prompts"]
    uri: str
    revision: str


class RlTask(SpecModel):
    """One RL run: Algorithm 1, lines 4 to 10.

    Inputs: `init` (weights to start from), `sft` (KL axis), one `reward/<name>` per checkpoint reward, `prompts`,
    `prompts/evaluation` where the split is a Source.
    """

    kind: Literal["rl"] = "rl"
    algorithm_version: str
    seed: int
    iteration: int
    member: int
    steps: int
    training: Training
    prompts: Prompts
    rewards: tuple[Reward, ...]
    tracking: Tracking | None = None


class MergeTask(SpecModel):
    """SLERP of the members' task vectors from `init`, then LITI: inputs `init`, `member/1` ... `member/M`.

    Publishes `merged/...` (the merged policy) and `next-init/...` in one artifact, and `serving/...` if it is wanted.
    """

    kind: Literal["merge"] = "merge"
    granularity: Granularity
    order: SlerpOrder
    liti_rate: DecimalText
    serving_copy: ServingCopy = ServingCopy.NO_COPY

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Tasks without a serving copy look as they did before there was one."""
        shown: dict[str, Any] = serialize(self)
        if self.serving_copy is ServingCopy.NO_COPY:
            shown.pop("servingCopy", None)
            shown.pop("serving_copy", None)
        return shown

    @property
    def method(self) -> MergeMethod:
        """As the merge takes it."""
        return MergeMethod(granularity=self.granularity, order=self.order, liti_rate=self.liti_rate)


class PointTask(SpecModel):
    """One point of the front: weights (1 - liti_rate) sft + liti_rate * `source`.

    `name` is unique in the iteration: `sft`, `member/<m>`, `liti/<rate>`; `source` is an input role, or "" for SFT itself.
    """

    name: str
    source: str
    liti_rate: DecimalText = Decimal(1)


class EvaluateTask(SpecModel):
    """The points of one iteration or control.

    Inputs: `sft`, `merge` and the members that still exist (or `control`), checkpoint rewards, prompts as in RlTask.
    """

    kind: Literal["evaluate"] = "evaluate"
    algorithm_version: str
    iteration: int
    control: str = ""
    points: tuple[PointTask, ...]
    seed: int
    num_prompts: int | None
    num_generations: int
    training: Training
    prompts: Prompts
    rewards: tuple[Reward, ...]
    held_out_rewards: tuple[Reward, ...]


class ReportTask(SpecModel):
    """A page from evaluations: inputs `evaluate/<stage id>`; a view, never an input of anything."""

    kind: Literal["report"] = "report"
    confidence_level: DecimalText
    hypervolume: Hypervolume
    spec: dict[str, object]


Task = Annotated[ImportTask | RlTask | MergeTask | EvaluateTask | ReportTask, Field(discriminator="kind")]


class Resources(SpecModel):
    """What the attempt may use."""

    gpus: int = 0
    threads: int = 1
    memory_bytes: int = 0
    """What the spec says of memory; 0 where it says nothing."""


class StageInput(SpecModel):
    """All that a worker needs."""

    stage_id: str
    kind: StageKind
    key: str
    attempt_id: str
    namespace: str
    run: str
    storage: str
    resources: Resources = Resources()
    inputs: tuple[InputArtifact, ...] = ()
    task: Task

    def input(self, role: str) -> InputArtifact:
        """The input with this role; a missing one is the planner's mistake."""
        for artifact in self.inputs:
            if artifact.role == role:
                return artifact
        raise FinalError(f"stage {self.stage_id} has no input {role!r}", hint="report this as a bug of warpctl")

    def to_json(self) -> str:
        """The environment variable's value."""
        text = self.model_dump_json(by_alias=True, exclude_defaults=True, exclude={"task"})
        task = self.task.model_dump_json(by_alias=True)
        value = f'{text[:-1]},"task":{task}}}'
        if len(value.encode()) > MAX_BYTES:
            raise FinalError(
                f"stage {self.stage_id}: its input is {len(value.encode())} bytes, the limit is {MAX_BYTES}",
                hint="shorten annotations, environment variables or URIs of the spec",
            )
        return value

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> StageInput:
        """Read the worker's StageInput."""
        if ENVIRONMENT_VARIABLE not in environment:
            raise FinalError(
                f"{ENVIRONMENT_VARIABLE} is not set", hint="workers are started by `warpctl run` or by the controller"
            )
        return cls.model_validate_json(environment[ENVIRONMENT_VARIABLE])
