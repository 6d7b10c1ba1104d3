"""An RL stage as the planner would start it, run in this process on a policy of a few thousand parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tests.builders.checkpoints import publish
from tests.builders.contexts import context_of
from warpctl.spec.models import FunctionReward, HeldOutSplit, Prompts, Reward
from warpctl.spec.stage_input import InputArtifact, RlTask, StageInput, StageKind
from warpctl.spec.training import Training
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store
from warpctl.tiny.grammar import all_topics
from warpctl.tiny.policy import policy_config
from warpctl.tiny.recipe import Recipe
from warpctl.tiny.tokenizer import make_tokenizer
from warpctl.workers.harness import StopFlag
from warpctl.workers.rl import main

KEY = "2" * 64
GROUND_TRUTH = FunctionReward(type="Function", name="truth", function="warpctl.tiny.ground_truth:score", revision="1")
PROMPTS = Prompts(uri="memory://prompts", evaluation_split=HeldOutSplit(type="HeldOut", count=4), max_prompt_tokens=16)


def training(**settings: Any) -> Training:
    """A short run: six steps of four completions of at most six tokens, saved every two steps."""
    values = {
        "steps": 6,
        "emaRate": "0.1",
        "batchSize": 4,
        "optimizer": {"learningRate": "3e-3", "warmupSteps": 2},
        "sampling": {"maxNewTokens": 6},
        "resumeState": {"everySteps": 2},
        "evaluation": {"everySteps": 3, "numPrompts": 3},
        **settings,
    }
    steps = values["steps"]
    return Training.model_validate(values | {"steps": [steps] if isinstance(steps, int) else steps})


def small_policy(seed: int = 0, *, width: int = 32) -> Any:
    """A Gemma with random weights and the tiny laboratory's vocabulary."""
    torch.manual_seed(seed)
    config = policy_config(Recipe(width=width))
    return AutoModelForCausalLM.from_config(config).eval()


@cache
def policy_files(seed: int = 0) -> Mapping[str, bytes]:
    """The files of its folder, as an import publishes them."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        small_policy(seed).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        (Path(folder) / "chat_template.jinja").write_text("{{ messages[0].content }}")
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def prompt_lines(count: int = 12) -> bytes:
    """A JSONL of different prompts."""
    step = len(all_topics()) // count
    return "".join(json.dumps({"prompt": topic.prompt}) + "\n" for topic in all_topics()[::step][:count]).encode()


def rl_stage(
    storage: str,
    *,
    settings: Training | None = None,
    attempt_id: str = "1",
    member: int = 1,
    init_seed: int = 0,
    init_files: Mapping[str, bytes] | None = None,
    lines: bytes | None = None,
    rewards: Sequence[Reward] = (GROUND_TRUTH,),
    further_inputs: Sequence[InputArtifact] = (),
    prompts: Prompts = PROMPTS,
    key: str = KEY,
    seed: int = 7,
) -> StageInput:
    """The stage's input, its input artifacts published."""
    store = Store.open(storage)
    inputs = (
        publish(store, policy_files(0), key="a" * 64, role="sft"),
        publish(store, init_files or policy_files(init_seed), key="b" * 64, role="init"),
        publish(store, {"prompts.jsonl": prompt_lines() if lines is None else lines}, key="c" * 64, role="prompts"),
        *further_inputs,
    )
    chosen = settings or training()
    return StageInput(
        stage_id=f"rl/1/{member}",
        kind=StageKind.RL,
        key=key,
        attempt_id=attempt_id,
        namespace="default",
        run="test",
        storage=storage,
        inputs=inputs,
        task=RlTask(
            algorithm_version="1",
            seed=seed,
            iteration=1,
            member=member,
            steps=chosen.steps_of(1),
            training=chosen,
            prompts=prompts,
            rewards=tuple(rewards),
        ),
    )


def run_rl(stage: StageInput, *, stop: StopFlag | None = None, store: Store | None = None) -> Artifact:
    """Run the worker to its end; what it published."""
    context = context_of(stage, stop=stop, store=store)
    main(context)
    return Artifact.load(context.store, stage.kind, stage.key)


def metrics_of(artifact: Artifact) -> list[dict[str, Any]]:
    """The records of metrics.jsonl."""
    return [json.loads(line) for line in artifact.read("metrics.jsonl").decode().splitlines()]
