"""What makes an evaluated point the same point: its key is computed from this and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from warpctl.spec.decimals import decimal_text
from warpctl.spec.models import CheckpointReward, FunctionReward, HeldOutSplit, Reward
from warpctl.spec.stage_input import EvaluateTask


def point_identity(
    task: EvaluateTask,
    *,
    sft_content: str,
    source_content: str,
    source_prefix: str,
    liti_rate: Decimal,
    content: Mapping[str, str],
) -> dict[str, Any]:
    """The projection of one point: algorithm version, weights by content, rate, and how they are evaluated.

    `content` maps the roles of the other inputs (prompts, reward checkpoints) to content digests. Rate 0 is the SFT policy,
    whatever the source: it has one identity for all iterations. URIs, batch cadences and names of points do not enter.
    """
    is_sft = liti_rate == 0 or not source_content
    sampling = task.training.sampling
    split = task.prompts.evaluation_split
    prompts = task.prompts.model_dump(
        mode="json", by_alias=True, include={"format", "column", "template", "max_prompt_tokens", "long_prompts"}
    )
    return {
        "algorithmVersion": task.algorithm_version,
        "sft": sft_content,
        "source": "" if is_sft else f"{source_content}/{source_prefix}",
        "litiRate": "0" if is_sft else decimal_text(liti_rate),
        "seed": task.seed,
        "numPrompts": task.num_prompts,
        "numGenerations": task.num_generations,
        "sampling": sampling.model_dump(mode="json", by_alias=True),
        "precision": str(task.training.precision),
        "prompts": {
            **prompts,
            "content": content["prompts"],
            "heldOut": split.count if isinstance(split, HeldOutSplit) else 0,
            "evaluationContent": content.get("prompts/evaluation", ""),
        },
        "rewards": [_reward(reward, content) for reward in task.rewards],
        "heldOutRewards": [_reward(reward, content) for reward in task.held_out_rewards],
    }


def _reward(reward: Reward, content: Mapping[str, str]) -> dict[str, str]:
    shared = {"type": reward.type, "name": reward.name, "weight": decimal_text(reward.weight)}
    if isinstance(reward, CheckpointReward):
        return {**shared, "content": content[f"reward/{reward.name}"]}
    if isinstance(reward, FunctionReward):
        return {**shared, "function": reward.function, "revision": reward.revision}
    return {**shared, "revision": reward.revision}
