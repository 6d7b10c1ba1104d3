"""How one RL run trains (Algorithm 1, lines 3 to 10) and how its policies are merged (lines 12 and 13)."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Self

from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field, model_validator

from warpctl.spec.base import DecimalText, Disagreement, Limit, SpecModel, refuse
from warpctl.spec.cel import CelRule
from warpctl.spec.merge_method import Granularity, SlerpOrder


class Anchor(StrEnum):
    EMA = "Ema"
    SFT = "Sft"
    NO_ANCHOR = "NoAnchor"


class Baseline(StrEnum):
    NO_BASELINE = "NoBaseline"
    BATCH_MEAN = "BatchMean"
    LEAVE_ONE_OUT = "LeaveOneOut"


class Precision(StrEnum):
    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"


class ServingCopy(StrEnum):
    NO_COPY = "NoCopy"
    BFLOAT16 = "BFloat16"


class Optimizer(SpecModel):
    """Adam, as in the paper; a fresh state for every RL run."""

    learning_rate: Annotated[DecimalText, Gt(0), Le(1)] = Decimal("1e-6")
    """Peak learning rate, constant after the warm-up (paper: 1e-6)."""
    warmup_steps: Annotated[int, Ge(0), Le(1_000_000)] = 100
    """Optimizer steps of linear warm-up from 0 (paper: 100)."""
    beta1: Annotated[DecimalText, Ge(0), Lt(1)] = Decimal("0.9")
    """Adam's first-moment decay (not stated in the paper)."""
    beta2: Annotated[DecimalText, Ge(0), Lt(1)] = Decimal("0.95")
    """Adam's second-moment decay (not stated in the paper)."""
    epsilon: Annotated[DecimalText, Gt(0), Le(1)] = Decimal("1e-8")
    """Adam's epsilon (not stated in the paper)."""
    max_grad_norm: Limit = Decimal(1)
    """Gradients are scaled down to this global norm; Unlimited: no clipping (not stated in the paper)."""


class Sampling(SpecModel):
    """How completions are sampled, in training and in evaluation alike."""

    temperature: Annotated[DecimalText, Gt(0), Le(10)] = Decimal("0.9")
    """Softmax temperature (paper: 0.9); log-probabilities are taken at this temperature everywhere."""
    top_p: Annotated[DecimalText, Gt(0), Le(1)] = Decimal(1)
    """Nucleus mass; 1 samples from the whole distribution. Below 1, log-probabilities stay those of the whole one."""
    max_new_tokens: Annotated[int, Ge(1), Le(131_072)] = 128
    """Longest completion, in tokens, the end-of-sequence token included."""


class RewardShaping(SpecModel):
    """What is done to the raw score before the KL term."""

    clip: Annotated[DecimalText, Gt(0)] | None = None
    """The weighted score is clipped to [-clip, clip]; null: not clipped (not stated in the paper)."""
    length_penalty: Annotated[DecimalText, Ge(0), Le(1000)] = Decimal(0)
    """Subtracted per completion token (paper, appendix: 0.0005)."""
    missing_end_penalty: Annotated[DecimalText, Ge(0), Le(1_000_000)] = Decimal(0)
    """Subtracted from the score of a completion that has no end-of-sequence token."""


class ResumeState(SpecModel):
    """Everything that is needed to continue an RL run: policy, EMA, optimizer, generators, position."""

    every_steps: Annotated[int, Ge(1), Le(1_000_000)] = 100
    """A resume state is saved after this many optimizer steps, and when the worker is asked to stop."""


class TrajectoryEvaluation(SpecModel):
    """Evaluation along an RL run, with its own random generator, so that it changes nothing in training."""

    every_steps: Annotated[int, Ge(1), Le(1_000_000)] = 100
    """Optimizer steps between evaluations (paper: 100)."""
    num_prompts: Annotated[int, Ge(0), Le(100_000)] = 64
    """Evaluation prompts used each time; 0 switches it off."""


Steps = Annotated[int, Ge(1), Le(10_000_000)]


class Training(SpecModel):
    """One RL run: REINFORCE with a KL term to the anchor inside the reward."""

    steps: Annotated[tuple[Steps, ...], Field(min_length=1, max_length=100)]
    """T, optimizer steps of each RL run, one number per iteration, the last one repeating: [400] is 400 in all of them
    (paper: 9000, 7000, 7000, 5000, 5000)."""
    anchor: Anchor = Anchor.EMA
    """Target of the KL term: Ema (the paper's moving average of the policy, restarted from the iteration's init),
    Sft (the SFT policy, fixed), NoAnchor (no KL term)."""
    ema_rate: Annotated[DecimalText, Gt(0), Le(1)] = Decimal("0.01")
    """mu: after every step, anchor = (1 - mu) anchor + mu policy (paper: 0.01); read with anchor Ema only. About 1/T to
    2/T works; 1 makes the anchor the policy itself, which removes the KL term."""
    kl_coefficient: Annotated[DecimalText, Ge(0), Le(1000)] = Decimal("0.1")
    """beta: the reward is score - beta * log(policy / anchor), the log-ratio in nats and summed over the completion
    (paper: 0.1); 0 switches the KL term off."""
    baseline: Baseline = Baseline.BATCH_MEAN
    """What is subtracted from the reward: NoBaseline, BatchMean (mean of the batch), LeaveOneOut (mean of the other
    completions of the same prompt). Not stated in the paper."""
    batch_size: Annotated[int, Ge(1), Le(1_000_000)] = 128
    """Completions per optimizer step (paper: 128); a multiple of numGenerations."""
    micro_batch_size: Annotated[int, Ge(1), Le(1_000_000)] | None = None
    """Completions per forward and backward pass, a divisor of batchSize; null: the whole batch."""
    num_generations: Annotated[int, Ge(1), Le(1024)] = 1
    """Completions per prompt; LeaveOneOut needs at least 2 (not stated in the paper)."""
    optimizer: Optimizer = Optimizer()
    """Adam's settings."""
    sampling: Sampling = Sampling()
    """How completions are sampled."""
    reward_shaping: RewardShaping = RewardShaping()
    """Clipping and penalties."""
    precision: Precision = Precision.FLOAT32
    """Arithmetic of forward and backward passes (not stated in the paper); master weights, EMA and optimizer are float32
    always."""
    max_kl: Limit = Decimal(200)
    """An RL run ends, published and marked, when its running KL to SFT reaches this many nats (paper: 200); Unlimited: it
    never does."""
    resume_state: ResumeState = ResumeState()
    """When resume states are saved."""
    evaluation: TrajectoryEvaluation = TrajectoryEvaluation()
    """Evaluation along the run."""

    def steps_of(self, iteration: int) -> int:
        """Optimizer steps of the RL runs of `iteration` (from 1)."""
        return self.steps[min(iteration, len(self.steps)) - 1]

    cel = (
        CelRule("batchSize", "{batchSize} % {numGenerations} == 0", "must be a multiple of numGenerations"),
        CelRule(
            "microBatchSize", "!{+microBatchSize} || {batchSize} % self.microBatchSize == 0", "must divide batchSize"
        ),
        CelRule(
            "baseline",
            "{baseline} != 'LeaveOneOut' || {numGenerations} >= 2",
            "must not be LeaveOneOut with one completion per prompt: set numGenerations to 2 or more",
        ),
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        found = []
        batch, generations = ("batchSize",), ("numGenerations",)
        if self.batch_size % self.num_generations:
            message = f"must be a multiple of numGenerations ({self.num_generations})"
            found.append(Disagreement(batch, message, self.batch_size, (batch, generations)))
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            micro = ("microBatchSize",)
            message = f"must divide batchSize ({self.batch_size})"
            found.append(Disagreement(micro, message, self.micro_batch_size, (micro, batch)))
        if self.baseline is Baseline.LEAVE_ONE_OUT and self.num_generations < 2:
            baseline = ("baseline",)
            message = "must not be LeaveOneOut with one completion per prompt"
            found.append(Disagreement(baseline, message, self.baseline, (baseline, generations)))
        refuse("Training", found)
        return self


class Merge(SpecModel):
    """SLERP of the task vectors, then LITI toward the iteration's init."""

    granularity: Granularity = Granularity.LAYER
    """What SLERP is applied to at a time: Layer (paper; embeddings, final norm and head are groups of their own),
    Tensor, or Global (the whole task vector)."""
    order: SlerpOrder = SlerpOrder.PAPER
    """For more than two RL runs: Paper (the slerp of the first m - 1 with the m-th at lambda = 1/m, so member order matters)
    or Symmetric (every member weighs the same)."""
    liti_rate: Annotated[DecimalText, Ge(0), Le(1)] = Decimal("0.3")
    """eta: the next init is (1 - eta) init + eta merged (paper: 0.3); 0 keeps the init, 1 keeps the merged policy."""
    serving_copy: ServingCopy = ServingCopy.NO_COPY
    """BFloat16: each merge also publishes its merged policy in bfloat16, under serving/, for a server to load as it is; half the
    size of the float32 one, each value rounded once. Nothing in the run reads it."""
