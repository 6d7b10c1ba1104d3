"""What a run reads: models, rewards, prompts, and where it keeps what it makes."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import Field, StringConstraints

from warpctl.spec.base import DecimalText, SpecModel

# No control characters, no white space at either end; inside, a space may be, as local paths have them.
URI_PATTERN = r"^[^\s\x00]([^\x00-\x1f\x7f]*[^\s\x00])?$"
TEXT_PATTERN = r"^[^\s\x00]+$"
REWARD_NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
FUNCTION_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
URL_PATTERN = r"^https?://[^\s\x00]+$"

Uri = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=URI_PATTERN)]
Revision = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=TEXT_PATTERN)]
RewardName = Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=REWARD_NAME_PATTERN)]


class Storage(SpecModel):
    """The artifact store that every stage of the run shares."""

    uri: Uri
    """Root of the artifact store: gs://bucket/prefix, s3://bucket/prefix, or a folder (local runs only;
    a leading ~ is the home of whoever runs the worker)."""


class Source(SpecModel):
    """Something that is imported once, by content, and pinned from then on."""

    uri: Uri
    """Where it is read: a folder, gs://, s3:// or hf://owner/name[/folder]; a relative path counts from the spec's folder,
    a leading ~ is the home of whoever runs the worker."""
    revision: Revision = "main"
    """For hf:// the branch, tag or commit, pinned to a commit at import; elsewhere a name of yours for this content.
    The same URI with new content is picked up when the revision changes, or the annotation
    warpctl.dev/refresh."""


class CheckpointReward(SpecModel):
    """A sequence-classification checkpoint; its score is the one logit."""

    type: Literal["Checkpoint"]
    """Selects this kind of reward."""
    name: RewardName
    """Name in metrics, tables and the report; unique among all rewards of the run."""
    weight: Annotated[DecimalText, Ge(-1000), Le(1000)] = Decimal(1)
    """Factor of its score in the weighted sum; negative punishes. Without meaning for a held-out reward."""
    uri: Uri
    """Where the checkpoint is imported from, as in models.sft.uri."""
    revision: Revision = "main"
    """As in models.sft.revision."""


class FunctionReward(SpecModel):
    """A Python function `f(prompts, completions) -> sequence of floats`, installed in the worker."""

    type: Literal["Function"]
    """Selects this kind of reward."""
    name: RewardName
    """Name in metrics, tables and the report; unique among all rewards of the run."""
    weight: Annotated[DecimalText, Ge(-1000), Le(1000)] = Decimal(1)
    """Factor of its score in the weighted sum; negative punishes. Without meaning for a held-out reward."""
    function: Annotated[str, StringConstraints(max_length=256, pattern=FUNCTION_PATTERN)]
    """`package.module:function`."""
    revision: Revision
    """Names the function's behaviour: change it when the function changes, and only then."""


class HttpReward(SpecModel):
    """An endpoint: POST {"prompts": [...], "completions": [...]} answers {"scores": [...]}."""

    type: Literal["Http"]
    """Selects this kind of reward."""
    name: RewardName
    """Name in metrics, tables and the report; unique among all rewards of the run."""
    weight: Annotated[DecimalText, Ge(-1000), Le(1000)] = Decimal(1)
    """Factor of its score in the weighted sum; negative punishes. Without meaning for a held-out reward."""
    url: Annotated[str, StringConstraints(max_length=1024, pattern=URL_PATTERN)]
    """Where to POST; moving the endpoint does not change results, its revision does."""
    revision: Revision
    """Names the endpoint's behaviour: change it when what it answers changes, and only then."""
    timeout_seconds: Annotated[int, Ge(1), Le(3600)] = 60
    """Seconds for one request before it is retried."""


Reward = Annotated[CheckpointReward | FunctionReward | HttpReward, Field(discriminator="type")]


class Models(SpecModel):
    """The models that a run starts from and is judged by."""

    sft: Source
    """The supervised fine-tuned policy (theta_sft): start of iteration 1 and origin of the KL axis."""
    rewards: Annotated[tuple[Reward, ...], Field(min_length=1, max_length=8)]
    """What is optimised (r): the weighted sum of these."""
    held_out_rewards: Annotated[tuple[Reward, ...], Field(max_length=8)] = ()
    """Never trained on, only evaluated: a front on the optimised reward alone can mislead."""


class PromptFormat(StrEnum):
    JSONL = "Jsonl"
    PARQUET = "Parquet"


class PromptTemplate(StrEnum):
    PLAIN = "Plain"
    CHAT = "Chat"


class LongPrompts(StrEnum):
    DROP = "Drop"
    CUT = "Cut"


class HeldOutSplit(SpecModel):
    """Evaluation prompts are set aside from the training prompts, by the hash of their text."""

    type: Literal["HeldOut"]
    """Selects this kind of split."""
    count: Annotated[int, Ge(1), Le(1_000_000)]
    """How many prompts are set aside; they are never trained on."""


class SourceSplit(SpecModel):
    """Evaluation prompts come from a file of their own, of the same format, column and template."""

    type: Literal["Source"]
    """Selects this kind of split."""
    uri: Uri
    """Where the evaluation prompts are imported from."""
    revision: Revision = "main"
    """As in models.sft.revision."""


EvaluationSplit = Annotated[HeldOutSplit | SourceSplit, Field(discriminator="type")]


class Prompts(SpecModel):
    """The prompt set X."""

    uri: Uri
    """A JSONL or Parquet file, or a folder of them, imported once: a path, gs://, s3://, https:// (one file) or
    hf://datasets/owner/name[/path]."""
    revision: Revision = "main"
    """As in models.sft.revision."""
    format: PromptFormat = PromptFormat.JSONL
    """File format."""
    column: Annotated[str, StringConstraints(min_length=1, max_length=128)] = "prompt"
    """The field that holds the prompt: a string, or with template Chat also a list of role/content messages."""
    template: PromptTemplate = PromptTemplate.PLAIN
    """Plain: the text as it is, with the tokenizer's own special tokens. Chat: through the SFT policy's chat template."""
    max_prompt_tokens: Annotated[int, Ge(1), Le(131_072)] = 512
    """Longest prompt, in tokens, template included."""
    long_prompts: LongPrompts = LongPrompts.DROP
    """What happens to a longer prompt: dropped and counted, or cut to its last maxPromptTokens tokens."""
    evaluation_split: EvaluationSplit = HeldOutSplit(type="HeldOut", count=256)
    """Where evaluation prompts come from."""


PositiveDecimal = Annotated[DecimalText, Gt(0)]
Fraction = Annotated[DecimalText, Ge(0), Le(1)]
