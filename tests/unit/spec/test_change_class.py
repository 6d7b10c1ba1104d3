"""Every field has one change class, no entry of the table is stale, and differences name what an edit does."""

from __future__ import annotations

import pytest

from tests.builders.bad_specs import FOLDER, as_yaml, spoil
from warpctl.spec.change_class import (
    CHANGE_CLASSES,
    ChangeClass,
    FieldChange,
    change_class,
    covering_entry,
    differences,
    leaf_fields,
)
from warpctl.spec.fields import fields
from warpctl.spec.parse import parse_file, parse_text

LIVE = {
    "spec.suspend", "spec.parallelism", "spec.retry.limit", "spec.retry.infrastructureLimit", "spec.retry.backoffSeconds",
    "spec.retry.backoffMaxSeconds", "spec.budget.gpuHours", "spec.retention.members", "spec.retention.merges",
    "spec.updatePolicy", "spec.deletionPolicy", "spec.evaluation.confidenceLevel", "spec.evaluation.hypervolume.maxKl",
}  # fmt: skip
EXTEND = {"spec.iterations", "spec.evaluation.litiRates", "spec.controls"}
PLACEMENT = {
    "spec.storage.uri", "spec.training.microBatchSize", "spec.training.resumeState.everySteps",
    "spec.training.evaluation.everySteps", "spec.training.evaluation.numPrompts", "spec.models.rewards[].url",
    "spec.models.rewards[].timeoutSeconds", "spec.models.heldOutRewards[].url",
    "spec.models.heldOutRewards[].timeoutSeconds", "spec.tracking.type", "spec.tracking.project", "spec.tracking.uri",
}  # fmt: skip


def edited(**row):
    return parse_text(as_yaml(spoil({"set": row.get("to", {}), "remove": row.get("without", [])})), source="new.yaml")


GOOD_RUN = parse_file(FOLDER / "good.yaml")


@pytest.mark.parametrize("path", list(leaf_fields()))
def test_every_field_has_the_class_that_the_design_gives_it(path):
    if path in LIVE:
        expected = ChangeClass.LIVE
    elif path in EXTEND:
        expected = ChangeClass.EXTEND
    elif path in PLACEMENT or path.startswith("spec.compute."):
        expected = ChangeClass.PLACEMENT
    else:
        expected = ChangeClass.OUTCOME
    assert change_class(path) is expected


def test_no_entry_of_the_table_is_stale_or_idle():
    used = {covering_entry(path) for path in leaf_fields()}
    assert set(CHANGE_CLASSES) <= set(fields())
    assert set(CHANGE_CLASSES) == used


def test_no_expectation_of_this_test_is_stale():
    assert set(leaf_fields()) >= LIVE | EXTEND | PLACEMENT


def test_an_unknown_field_has_no_class():
    with pytest.raises(KeyError, match=r"spec\.clusters"):
        change_class("spec.clusters")


def test_a_prefix_covers_whole_names_only():
    with pytest.raises(KeyError):
        change_class("spec.seeds")


def test_indices_do_not_matter():
    assert change_class("spec.models.rewards[7].timeoutSeconds") is ChangeClass.PLACEMENT
    assert change_class("spec.controls[1]") is ChangeClass.EXTEND


def test_a_run_does_not_differ_from_itself_however_it_is_spelt():
    spelt_out = edited(to={"spec.merge.litiRate": "0.300", "spec.merge.order": "Paper", "spec.seed": 0})
    assert differences(GOOD_RUN, spelt_out) == ()


def test_differences_come_in_the_order_of_the_reference_with_old_new_and_class():
    new = edited(
        to={
            "spec.training.klCoefficient": "0.05",
            "spec.iterations": 5,
            "spec.suspend": True,
            "spec.compute.rl.gpus": 4,
            "spec.controls": [],
            "spec.training.steps": [400],
        }
    )
    assert differences(GOOD_RUN, new) == (
        FieldChange("spec.iterations", 3, 5, ChangeClass.EXTEND),
        FieldChange("spec.training.steps", [400, 300, 300], [400], ChangeClass.OUTCOME),
        FieldChange("spec.training.klCoefficient", "0.1", "0.05", ChangeClass.OUTCOME),
        FieldChange("spec.controls", ["NoAnchor"], [], ChangeClass.EXTEND),
        FieldChange("spec.compute.rl.gpus", 8, 4, ChangeClass.PLACEMENT),
        FieldChange("spec.suspend", False, True, ChangeClass.LIVE),
    )


def test_items_of_a_list_are_compared_one_by_one():
    changed = edited(to={"spec.models.rewards[1].timeoutSeconds": 31, "spec.models.rewards[0].weight": "2"})
    assert [(each.path, each.old, each.new) for each in differences(GOOD_RUN, changed)] == [
        ("spec.models.rewards[0].weight", "1", "2"),
        ("spec.models.rewards[1].timeoutSeconds", 30, 31),
    ]


def test_a_removed_item_shows_each_of_its_fields_as_absent():
    fewer = edited(without=["spec.models.rewards[1]"])
    changes = differences(GOOD_RUN, fewer)
    assert {each.path for each in changes} == {
        f"spec.models.rewards[1].{name}" for name in ("type", "name", "weight", "url", "revision", "timeoutSeconds")
    }
    assert all(each.new is None for each in changes)


def test_another_kind_of_split_changes_its_fields():
    new = edited(to={"spec.prompts.evaluationSplit": {"type": "Source", "uri": "gs://b/eval"}})
    assert [(each.path, each.old, each.new) for each in differences(GOOD_RUN, new)] == [
        ("spec.prompts.evaluationSplit.type", "HeldOut", "Source"),
        ("spec.prompts.evaluationSplit.count", 256, None),
        ("spec.prompts.evaluationSplit.uri", None, "gs://b/eval"),
        ("spec.prompts.evaluationSplit.revision", None, "main"),
    ]
