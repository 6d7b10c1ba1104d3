"""Where stages run and how failures, retention and cost are governed: nothing here changes a result."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import Field, StringConstraints

from warpctl.spec.base import DecimalText, SpecModel

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
Quantity = Annotated[str, StringConstraints(max_length=32, pattern=QUANTITY_PATTERN)]
ShortText = Annotated[str, StringConstraints(max_length=256)]
EnvName = Annotated[str, StringConstraints(max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class EnvVar(SpecModel):
    """One environment variable of the worker; secrets come through envFrom."""

    name: EnvName
    """Its name."""
    value: Annotated[str, StringConstraints(max_length=4096)]
    """Its value, in clear text."""


class Toleration(SpecModel):
    """As in a Kubernetes pod."""

    key: ShortText = ""
    """Taint key; empty with operator Exists tolerates every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Exists or Equal."""
    value: ShortText = ""
    """Taint value, with Equal."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Taint effect; empty means all."""


class PodTemplate(SpecModel):
    """The part of a pod that a run may choose; a local run uses env and ignores the rest, with a warning."""

    image: ShortText | None = None
    """Worker image; null: the controller's default for this stage kind."""
    image_pull_secrets: Annotated[tuple[ShortText, ...], Field(max_length=8)] = ()
    """Names of image pull secrets."""
    node_selector: dict[ShortText, ShortText] = Field(default_factory=dict, max_length=32)
    """Node labels to require."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    """Taints to tolerate."""
    priority_class_name: ShortText | None = None
    """Pod priority class."""
    service_account_name: ShortText | None = None
    """Identity of the worker (workload identity)."""
    runtime_class_name: ShortText | None = None
    """Container runtime class."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = ()
    """Environment variables of the worker."""
    env_from_secrets: Annotated[tuple[ShortText, ...], Field(max_length=8)] = ()
    """Secrets whose keys become environment variables."""
    annotations: dict[ShortText, Annotated[str, StringConstraints(max_length=1024)]] = Field(
        default_factory=dict, max_length=32
    )
    """Pod annotations."""


class StageCompute(SpecModel):
    """Resources of one stage kind."""

    nodes: Annotated[int, Ge(1), Le(256)] = 1
    """Pods that work on one stage together."""
    gpus: Annotated[int, Ge(0), Le(64)] = 0
    """GPUs of each node."""
    cpu: Quantity | None = None
    """CPU cores of each node, as a Kubernetes quantity; locally the number of stages at once follows from it (null: 1)."""
    memory: Quantity | None = None
    """Memory of each node, as a Kubernetes quantity; not enforced locally."""
    pod_template: PodTemplate = PodTemplate()
    """The rest of the pod."""


class Compute(SpecModel):
    """Resources by stage kind."""

    import_: StageCompute = Field(default=StageCompute(), alias="import")
    """Imports of models and prompts: network and storage, no GPU."""
    rl: StageCompute = StageCompute()
    """RL runs."""
    merge: StageCompute = StageCompute()
    """Merges: CPU only."""
    evaluate: StageCompute = StageCompute()
    """Evaluations."""
    report: StageCompute = StageCompute()
    """Reports: CPU only."""

    def of(self, kind: str) -> StageCompute:
        """Resources of a stage kind."""
        return {
            "import": self.import_,
            "rl": self.rl,
            "merge": self.merge,
            "evaluate": self.evaluate,
            "report": self.report,
        }[kind]


class Retry(SpecModel):
    """When a failed stage is tried again."""

    limit: Annotated[int, Ge(0), Le(100)] = 3
    """Further attempts after application failures."""
    infrastructure_limit: Annotated[int, Ge(0), Le(10_000)] = 100
    """Further attempts after infrastructure failures (pre-emption, a killed process, a lost node); they have their own
    count because they say nothing about the stage."""
    backoff_seconds: Annotated[int, Ge(0), Le(3600)] = 10
    """Seconds before the first further attempt; doubled for each one after it."""
    backoff_max_seconds: Annotated[int, Ge(0), Le(86_400)] = 600
    """Longest wait between attempts, in seconds."""


class MemberRetention(StrEnum):
    KEEP = "Keep"
    UNTIL_EVALUATED = "UntilEvaluated"


class MergeRetention(StrEnum):
    KEEP = "Keep"
    LAST = "Last"


class Retention(SpecModel):
    """What stays in the store; resume states always go once their stage is committed."""

    members: MemberRetention = MemberRetention.KEEP
    """Weights of the RL runs: kept, or collectable once their iteration is merged and evaluated."""
    merges: MergeRetention = MergeRetention.KEEP
    """Merged policies: all kept, or only the last iteration's once the later ones are evaluated."""


class Budget(SpecModel):
    """A limit on cost."""

    gpu_hours: Annotated[DecimalText, Gt(0)] | None = None
    """The run is suspended when its attempts have used this many GPU-hours; null: no limit."""


class UpdatePolicy(StrEnum):
    RESTAGE = "Restage"
    REJECT = "Reject"


class DeletionPolicy(StrEnum):
    RETAIN = "Retain"
    DELETE = "Delete"
