"""Where stages run and how failures, retention and cost are governed: nothing here changes a result."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated

from annotated_types import Ge, Gt, Le
from pydantic import Field

from warpctl.spec.base import DecimalText, SpecModel
from warpctl.spec.pod import PodTemplate
from warpctl.spec.quantity import Quantity, amount


class StageCompute(SpecModel):
    """Resources of one stage kind."""

    nodes: Annotated[int, Ge(1), Le(256)] = 1
    """Pods that work on one stage together; torchrun's PET_* tell them of each other. Those of a merge share its output's files out
    among themselves, and the last one publishes. The workers of rl and evaluate compute on one device in 0.1 and do not divide a
    stage: every further node repeats its work, and the first to publish wins. Leave theirs at 1."""
    gpus: Annotated[int, Ge(0), Le(64)] = 0
    """GPUs of each node."""
    cpu: Quantity | None = None
    """CPU cores of each node, as a Kubernetes quantity; locally the number of stages at once follows from it (null: 1)."""
    memory: Quantity | None = None
    """Memory of each node, as a Kubernetes quantity; not enforced locally. A merge keeps to it by itself (null: to 1Gi): what does
    not fit is read twice."""
    shared_memory: Quantity | None = None
    """Most of that memory that /dev/shm may take; null: the controller's default. Ignored locally."""
    scratch: Quantity | None = None
    """Disk of each node for /tmp, set aside for it; null: the controller's limit, not set aside. Ignored locally."""
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


def num_cores(compute: StageCompute, default: str = "1") -> int:
    """Whole cores that a stage takes: its cpu quantity rounded up, `default` where nothing is said."""
    return max(1, math.ceil(amount(compute.cpu or default)))


def memory_bytes(compute: StageCompute) -> int:
    """Memory of a node of a stage, 0 where nothing is said."""
    return math.ceil(amount(compute.memory)) if compute.memory else 0


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
