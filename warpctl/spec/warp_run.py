"""The WarpRun: one whole WARP procedure, as a user writes it. Its field docstrings are the reference (docs/spec.md)."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from warpctl import names
from warpctl.spec.base import DecimalText, Disagreement, SpecModel, refuse
from warpctl.spec.cel import CelRule
from warpctl.spec.compute import Budget, Compute, DeletionPolicy, Retention, Retry, UpdatePolicy
from warpctl.spec.models import HeldOutSplit, Models, Prompts, Storage
from warpctl.spec.tracking import Tracking
from warpctl.spec.training import Merge, Training

API_VERSION = f"{names.GROUP}/v1alpha1"
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"


class Control(StrEnum):
    NO_ANCHOR = "NoAnchor"
    SFT_ANCHOR = "SftAnchor"
    COMPUTE_MATCHED = "ComputeMatched"


class Hypervolume(SpecModel):
    """The fixed corner that hypervolumes are measured from; never taken from the data."""

    max_kl: Annotated[DecimalText, Gt(0)] = Decimal(200)
    """KL to SFT of the reference corner, in nats (the paper stops a run at 200); its reward is that of the SFT policy."""


class Evaluation(SpecModel):
    """The KL-reward front of each iteration."""

    liti_rates: Annotated[tuple[Annotated[DecimalText, Gt(0), Le(2)], ...], Field(min_length=1, max_length=32)] = (
        Decimal("0.1"),
        Decimal("0.3"),
        Decimal("0.5"),
        Decimal("0.8"),
        Decimal(1),
    )
    """eta of each point of the output front: (1 - eta) sft + eta merged; above 1 extrapolates (paper: 0, .1, .3, .5, .8, 1;
    0 is the SFT policy, which is always evaluated)."""
    num_prompts: Annotated[int, Ge(1), Le(1_000_000)] | None = None
    """Evaluation prompts used, the same for every point; null: all."""
    num_generations: Annotated[int, Ge(1), Le(1024)] = 1
    """Completions per evaluation prompt."""
    seed: Annotated[int, Ge(0), Le(2**31 - 1)] = 0
    """Seed of evaluation sampling, the same for every point, so that differences are paired."""
    confidence_level: Annotated[DecimalText, Gt(0), Lt(1)] = Decimal("0.95")
    """Level of the bootstrap intervals over prompts, as a fraction (0.95 is 95%)."""
    hypervolume: Hypervolume = Hypervolume()
    """Reference of the hypervolume."""


Location = tuple[str | int, ...]


def _repetitions(values: dict[Location, object], message: str) -> list[Disagreement]:
    """One disagreement for every value that was there before; it points to the later one."""
    first: dict[object, Location] = {}
    found = []
    for at, value in values.items():
        if value in first:
            found.append(Disagreement(at, message, value, (at, first[value])))
        first.setdefault(value, at)
    return found


class WarpRunSpec(SpecModel):
    """What the run shall be."""

    algorithm_version: Literal["1"] = "1"
    """Version of the numerics: stays what it was when warpctl is upgraded, so that finished stages stay finished."""
    storage: Storage
    """The artifact store."""
    models: Models
    """SFT policy and rewards."""
    prompts: Prompts
    """The prompt set X."""
    iterations: Annotated[int, Ge(1), Le(100)] = 5
    """I, the number of WARP iterations (paper: 5; its gains level off after 3)."""
    rl_runs: Annotated[int, Ge(1), Le(64)] = 2
    """M, the number of independent RL runs of each iteration (paper: 2); merged with lambda = 1/M."""
    seed: Annotated[int, Ge(0), Le(2**31 - 1)] = 0
    """Seed of the run; RL runs derive theirs from it, their iteration and their member number."""
    training: Training
    """The RL runs."""
    merge: Merge = Merge()
    """SLERP and LITI."""
    evaluation: Evaluation = Evaluation()
    """The front."""
    controls: Annotated[tuple[Control, ...], Field(max_length=3)] = ()
    """Further single RL runs from the SFT policy to compare with, each evaluated at the same LITI rates: NoAnchor (no KL
    term) and SftAnchor (KL to the SFT policy), as long as an RL run of iteration 1, and ComputeMatched (as many steps as
    all RL runs of all iterations together, so more iterations train it anew)."""
    compute: Compute = Compute()
    """Resources."""
    tracking: Tracking | None = None
    """A tracker that shows the RL runs' metrics while they train; null: none. What is in the store stays the truth."""
    parallelism: Annotated[int, Ge(1), Le(1024)] | None = None
    """Most stages at once; null: as many as cores, GPUs or the cluster allow."""
    retry: Retry = Retry()
    """Further attempts of failed stages."""
    retention: Retention = Retention()
    """What stays in the store."""
    budget: Budget = Budget()
    """Limit on cost."""
    suspend: bool = False
    """True stops the run's workers after they have saved; false goes on from there."""
    update_policy: UpdatePolicy = UpdatePolicy.RESTAGE
    """What a change of outcome does to a started run: Restage makes the changed stages anew, Reject refuses the change."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """What deleting the WarpRun does to its artifacts: Retain them all, or Delete those that no other run wants."""

    cel = (
        CelRule(
            "models.rewards",
            "self.models.rewards.all(a, self.models.rewards.exists_one(b, a.name == b.name))",
            "the name of a reward must differ from the name of every other reward",
        ),
        CelRule(
            "models.heldOutRewards",
            "!has(self.models.heldOutRewards) || self.models.heldOutRewards.all(a, "
            "self.models.heldOutRewards.exists_one(b, a.name == b.name) && "
            "!self.models.rewards.exists(b, a.name == b.name))",
            "the name of a reward must differ from the name of every other reward",
        ),
        CelRule(
            "evaluation.litiRates",
            "!has(self.evaluation) || !has(self.evaluation.litiRates) || self.evaluation.litiRates.all(a, "
            "self.evaluation.litiRates.exists_one(b, double(a) == double(b)))",
            "must not repeat a rate of this list",
        ),
        CelRule(
            "controls",
            "!has(self.controls) || self.controls.all(a, self.controls.exists_one(b, a == b))",
            "must not repeat a control of this list",
        ),
        CelRule(
            "evaluation.numPrompts",
            "!has(self.evaluation) || !has(self.evaluation.numPrompts) || "
            "(has(self.prompts.evaluationSplit) && self.prompts.evaluationSplit.type != 'HeldOut') || "
            "self.evaluation.numPrompts <= (has(self.prompts.evaluationSplit) && "
            "has(self.prompts.evaluationSplit.count) ? self.prompts.evaluationSplit.count : 256)",
            "must be at most spec.prompts.evaluationSplit.count, which is 256 by default",
        ),
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        groups = {"rewards": self.models.rewards, "heldOutRewards": self.models.held_out_rewards}
        names: dict[Location, object] = {
            ("models", group, i, "name"): reward.name
            for group, rewards in groups.items()
            for i, reward in enumerate(rewards)
        }
        rates: dict[Location, object] = {
            ("evaluation", "litiRates", i): rate for i, rate in enumerate(self.evaluation.liti_rates)
        }
        controls: dict[Location, object] = {("controls", i): control for i, control in enumerate(self.controls)}
        found = [
            *_repetitions(names, "must differ from the name of every other reward"),
            *_repetitions(rates, "must not repeat a rate of this list"),
            *_repetitions(controls, "must not repeat a control of this list"),
        ]
        split, wanted = self.prompts.evaluation_split, self.evaluation.num_prompts
        if isinstance(split, HeldOutSplit) and wanted is not None and wanted > split.count:
            at, other = ("evaluation", "numPrompts"), ("prompts", "evaluationSplit", "count")
            message = f"must be at most spec.prompts.evaluationSplit.count ({split.count})"
            found.append(Disagreement(at, message, wanted, (at, other)))
        refuse("WarpRunSpec", found)
        return self


class Metadata(BaseModel):
    """Kubernetes object metadata; what else an API server adds is ignored."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )

    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
    """Name of the run: a DNS label of at most 63 characters."""
    namespace: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] = "default"
    """Namespace of the run."""
    labels: dict[str, str] = {}
    """Labels."""
    annotations: dict[str, str] = {}
    """Annotations; another value of warpctl.dev/refresh imports everything again."""


class WarpRun(SpecModel):
    """One whole WARP procedure."""

    api_version: Literal["warpctl.dev/v1alpha1"]
    """Version of this schema."""
    kind: Literal["WarpRun"]
    """Kind of the object."""
    metadata: Metadata
    """Name and namespace."""
    spec: WarpRunSpec
    """What the run shall be."""
    status: dict[str, Any] | None = Field(default=None, repr=False)
    """Written by the controller; ignored in a file."""

    @property
    def refresh_nonce(self) -> str:
        """Part of every import's key: a new one imports everything again."""
        return self.metadata.annotations.get(names.REFRESH, "")

    @property
    def is_cancelled(self) -> bool:
        """Whether its workers shall save and leave until the annotation goes."""
        return bool(self.metadata.annotations.get(names.CANCEL))

    @property
    def full_name(self) -> str:
        """namespace/name."""
        return f"{self.metadata.namespace}/{self.metadata.name}"
