"""Stage keys: frozen between releases, moved by exactly the fields whose change class is Outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.builders.world import a_run, imported
from warpctl.plan.keys import training_projection
from warpctl.plan.stages import stages
from warpctl.spec.change_class import ChangeClass, change_class, leaf_fields
from warpctl.spec.stage_input import RlTask, StageKind
from warpctl.spec.warp_run import WarpRun

GOLDEN = Path(__file__).parents[2] / "golden" / "keys.json"

RICH: dict[str, Any] = {
    "prompts": {"uri": "/prompts"},
    "models": {
        "sft": {"uri": "/sft", "revision": "a"},
        "rewards": [
            {"type": "Checkpoint", "name": "quality", "uri": "/reward", "weight": "0.5"},
            {"type": "Function", "name": "length", "function": "package.module:function", "revision": "1"},
            {"type": "Http", "name": "judge", "url": "http://judge/score", "revision": "1"},
        ],
        "heldOutRewards": [{"type": "Function", "name": "truth", "function": "package.module:truth", "revision": "1"}],
    },
    "controls": ["NoAnchor", "ComputeMatched"],
    "training": {"steps": [10, 20], "batchSize": 8, "numGenerations": 2, "microBatchSize": 4},
}

# One other valid value for each leaf field that the generic rules below cannot guess.
OTHER: dict[str, Any] = {
    "spec.storage.uri": "/elsewhere",
    "spec.training.steps": [11, 20],
    "spec.evaluation.litiRates": ["0.25", "1"],
    "spec.evaluation.numPrompts": 12,
    "spec.evaluation.hypervolume.maxKl": "150",
    "spec.controls": ["NoAnchor", "ComputeMatched", "SftAnchor"],
    "spec.iterations": 3,
    "spec.training.baseline": "LeaveOneOut",
    "spec.training.batchSize": 16,
    "spec.training.numGenerations": 4,
    "spec.training.microBatchSize": 2,
    "spec.training.rewardShaping.clip": "5",
    "spec.prompts.maxPromptTokens": 100,
    "spec.budget.gpuHours": "10",
    "spec.parallelism": 3,
    "spec.training.sampling.topP": "0.9",
}


def keys_of(run: WarpRun) -> dict[str, str]:
    graph = stages(run, imported(run))
    return {stage.id: stage.key for stage in graph.stages.values() if stage.kind is not StageKind.REPORT}


def with_value(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a spec with the value at a dotted path (spec.models.rewards[0].weight) replaced."""
    copy = json.loads(json.dumps(body))
    node: Any = {"spec": copy}
    parts = path.replace("[", ".[").split(".")
    for part in parts[:-1]:
        node = node[int(part[1:-1])] if part.startswith("[") else node.setdefault(part, {})
    node[parts[-1]] = value
    return copy


def test_keys_stay_what_they_were_in_earlier_releases() -> None:
    """If this fails, every finished stage of every user would be made again. Never update the golden file lightly."""
    found = {"plain": keys_of(a_run()), "rich": keys_of(a_run(**RICH))}

    assert json.loads(GOLDEN.read_text()) == found


def test_a_decimal_has_one_spelling() -> None:
    one = a_run(training={"steps": [10], "optimizer": {"learningRate": "1e-6"}})
    other = a_run(training={"steps": [10], "optimizer": {"learningRate": "0.0000010"}})

    assert keys_of(one) == keys_of(other)


def test_a_default_written_out_changes_no_key() -> None:
    assert keys_of(a_run()) == keys_of(a_run(training={"steps": [10], "emaRate": "0.01", "anchor": "Ema"}))


@pytest.mark.parametrize("kind", ["TensorBoard", "WandB", "MLflow", "Trackio"])
def test_a_tracker_changes_no_key(kind: str) -> None:
    """It is a view; the workers are told of it all the same."""
    tracked = a_run(tracking={"type": kind, "project": "curves", "uri": "somewhere"})

    assert keys_of(tracked) == keys_of(a_run())
    graph = stages(tracked, imported(tracked))
    tasks = [stage.task for stage in graph.stages.values() if isinstance(stage.task, RlTask)]
    assert tasks
    assert {task.tracking for task in tasks} == {tracked.spec.tracking}


def test_a_step_count_that_repeats_need_not_be_spelt_out() -> None:
    assert keys_of(a_run()) == keys_of(a_run(training={"steps": [10, 10]}))


def test_a_merge_without_a_serving_copy_has_the_key_and_the_task_that_it_had_before_there_was_one() -> None:
    graphs = [stages(run, imported(run)) for run in (a_run(), a_run(merge={"servingCopy": "BFloat16"}))]
    without, with_copy = (graph.stages["merge/1"] for graph in graphs)

    assert json.loads(without.task.model_dump_json(by_alias=True)) == {
        "kind": "merge", "granularity": "Layer", "order": "Paper", "litiRate": "0.3"
    }  # fmt: skip
    assert json.loads(with_copy.task.model_dump_json(by_alias=True))["servingCopy"] == "BFloat16"
    assert keys_of(a_run(merge={"servingCopy": "NoCopy"})) == keys_of(a_run())
    assert without.key != with_copy.key


def test_a_limit_that_is_unlimited_is_null_in_keys_as_it_was_before_it_had_a_word() -> None:
    run = a_run(training={"steps": [10], "maxKl": "Unlimited", "optimizer": {"maxGradNorm": "Unlimited"}})
    projection = training_projection(run.spec.training)
    assert (projection["maxKl"], projection["optimizer"]["maxGradNorm"]) == (None, None)
    assert training_projection(a_run().spec.training)["maxKl"] == "200"


def guess_other(path: str, current: Any) -> Any:
    if path in OTHER:
        return OTHER[path]
    choices = {
        "spec.training.anchor": "Sft",
        "spec.training.precision": "BFloat16",
        "spec.merge.granularity": "Tensor",
        "spec.merge.order": "Symmetric",
        "spec.merge.servingCopy": "BFloat16",
        "spec.prompts.format": "Parquet",
        "spec.prompts.template": "Chat",
        "spec.prompts.longPrompts": "Cut",
        "spec.updatePolicy": "Reject",
        "spec.deletionPolicy": "Delete",
        "spec.retention.members": "UntilEvaluated",
        "spec.retention.merges": "Last",
    }
    if path in choices:
        return choices[path]
    if isinstance(current, bool):
        return not current
    if isinstance(current, int):
        return current + 1
    if isinstance(current, str) and current.replace(".", "").isdigit():
        return "0.77"
    return f"{current}-other"


def simple_leaves() -> list[str]:
    """Leaf fields outside of lists, unions, compute and tracking, which have tests of their own."""
    skipped = (
        "spec.models.rewards",
        "spec.models.heldOutRewards",
        "spec.compute",
        "spec.prompts.evaluationSplit",
        "spec.tracking",
    )
    fixed = ("spec.algorithmVersion",)  # has one value yet
    return [
        path
        for path in leaf_fields()
        if path.startswith("spec.") and not path.startswith(skipped) and path not in fixed and "[" not in path
    ]


def value_at(run: WarpRun, path: str) -> Any:
    node: Any = run.model_dump(mode="json", by_alias=True)
    for part in path.split("."):
        node = node[part]
    return node


@pytest.mark.parametrize("path", simple_leaves())
def test_exactly_outcome_fields_move_keys_and_extend_fields_only_add_stages(path: str) -> None:
    base = a_run(**RICH)
    changed = a_run(**with_value(RICH, path, guess_other(path, value_at(base, path))))
    before, after = keys_of(base), keys_of(changed)
    moved = {stage_id for stage_id in before if after.get(stage_id) != before[stage_id]}

    match change_class(path):
        case ChangeClass.OUTCOME:
            assert moved
        case ChangeClass.EXTEND:
            # An evaluation carries its points; those that exist are reused one by one (points/<key>.json).
            # A compute-matched control has as many steps as all RL runs: more iterations make it a longer one.
            assert all("evaluate" in stage_id or "ComputeMatched" in stage_id for stage_id in moved)
            assert len(after) > len(before) or moved
        case ChangeClass.LIVE | ChangeClass.PLACEMENT:
            assert not moved


@pytest.mark.parametrize(
    ("path", "value", "moves"),
    [
        ("spec.models.rewards[0].uri", "/other", True),
        ("spec.models.rewards[0].weight", "2", True),
        ("spec.models.rewards[1].function", "package.module:other", True),
        ("spec.models.rewards[1].revision", "2", True),
        ("spec.models.rewards[2].url", "http://moved/score", False),
        ("spec.models.rewards[2].timeoutSeconds", 5, False),
        ("spec.models.rewards[2].revision", "2", True),
        ("spec.models.heldOutRewards[0].revision", "2", True),
        ("spec.compute.rl.gpus", 8, False),
        ("spec.compute.rl.podTemplate.image", "worker:2", False),
    ],
)
def test_rewards_and_compute_move_keys_by_their_class(path: str, value: object, moves: bool) -> None:
    body = {**RICH, "compute": {"rl": {"podTemplate": {}}}}
    before, after = keys_of(a_run(**body)), keys_of(a_run(**with_value(body, path, value)))

    assert (before != after) is moves
    assert (change_class(path) is ChangeClass.OUTCOME) is moves


def test_a_held_out_reward_reruns_no_training() -> None:
    before = keys_of(a_run(**RICH))
    after = keys_of(a_run(**with_value(RICH, "spec.models.heldOutRewards[0].revision", "2")))

    assert all("evaluate" in stage_id for stage_id in before if before[stage_id] != after[stage_id])


def test_training_of_iteration_2_leaves_iteration_1_alone() -> None:
    before = keys_of(a_run(training={"steps": [10, 20]}))
    after = keys_of(a_run(training={"steps": [10, 30]}))

    assert before["merge/1"] == after["merge/1"]
    assert before["rl/2/1"] != after["rl/2/1"]


def test_the_same_content_from_elsewhere_leaves_training_alone() -> None:
    """Everything behind an import builds on its content, not on its address."""
    here, there = (
        a_run(),
        a_run(
            models={"sft": {"uri": "/moved"}, "rewards": [{"type": "Checkpoint", "name": "quality", "uri": "/reward"}]}
        ),
    )
    content_here = dict(zip(imported(here), ["a", "b", "c"], strict=True))
    content_there = dict(zip(imported(there), ["a", "b", "c"], strict=True))

    assert stages(here, content_here).stages["merge/2"].key == stages(there, content_there).stages["merge/2"].key


def test_new_content_at_the_same_address_moves_everything_behind_it() -> None:
    run = a_run()
    one = dict(zip(imported(run), ["a", "b", "c"], strict=True))
    other = dict(zip(imported(run), ["A", "b", "c"], strict=True))

    assert stages(run, one).stages["rl/1/1"].key != stages(run, other).stages["rl/1/1"].key


def test_keys_behind_the_imports_are_pending_until_content_is_known() -> None:
    graph = stages(a_run(), {})

    assert set(graph.stages) == {"import/sft", "import/reward/quality", "import/prompts"}
    assert "rl/1/1" in graph.pending
    assert "report/final" in graph.pending


def test_refresh_moves_the_imports() -> None:
    run = a_run()
    annotated = run.model_copy(
        update={"metadata": run.metadata.model_copy(update={"annotations": {"warpctl.dev/refresh": "1"}})}
    )

    assert set(stages(run, {}).by_key()).isdisjoint(stages(annotated, {}).by_key())
