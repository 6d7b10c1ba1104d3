"""The CRD is made from the models: structural, bounded, without defaults, with a rule for what a schema cannot say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.builders.bad_specs import GOOD, ROWS, spoil
from warpctl.spec.cel import CelRule, expand, in_interval, literal
from warpctl.spec.change_class import ChangeClass, change_class, leaf_fields
from warpctl.spec.cluster_status import ClusterStatus
from warpctl.spec.crd import crd, crd_yaml, schema
from warpctl.spec.fields import fields
from warpctl.spec.reject import reject_rules
from warpctl.spec.structural import _models
from warpctl.spec.training import Training
from warpctl.spec.warp_run import WarpRunSpec

TOP = Path(__file__).parents[3]
VERSION = crd()["spec"]["versions"][0]
SCHEMA = schema()
SPEC = SCHEMA["properties"]["spec"]
CLIENT_SIDE_APPLY = 256 * 1024
"""Bytes of annotations that an object may have: `kubectl apply` keeps a copy of the whole object in one."""


def nodes(node, path):
    """Every schema of a value below `node`, with its path."""
    yield path, node
    for name, each in node.get("properties", {}).items():
        yield from nodes(each, f"{path}.{name}" if path else name)
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


def rules():
    """Where the API server says that a rule is broken -> the rules."""
    found = {}
    for path, node in nodes(SPEC, "spec"):
        for rule in node.get("x-kubernetes-validations", ()):
            found.setdefault(path + rule.get("fieldPath", ""), []).append(rule)
    return found


def test_the_committed_file_is_up_to_date():
    assert (TOP / "manifests" / "crd.yaml").read_text() == crd_yaml(), "run: make generate"


def test_the_file_is_the_definition():
    assert YAML(typ="safe").load(crd_yaml()) == crd()


def test_it_can_be_applied_by_every_kubectl():
    assert len(json.dumps(crd())) < CLIENT_SIDE_APPLY


def test_names_and_columns_are_those_of_the_design():
    names = crd()["spec"]["names"]
    assert (names["plural"], names["shortNames"], names["categories"]) == ("warpruns", ["wr"], ["warp"])
    assert VERSION["subresources"] == {"status": {}}
    columns = VERSION["additionalPrinterColumns"]
    always = [each["name"] for each in columns if not each.get("priority")]
    assert always == ["Status", "Iter", "Stages", "KL", "Reward", "Retries", "Age"]
    assert [each["name"] for each in columns if each.get("priority")] == ["Queue", "Storage", "GPU-h", "Message"]


@pytest.mark.parametrize("column", VERSION["additionalPrinterColumns"], ids=lambda column: column["name"])
def test_a_column_shows_a_field_that_is_there(column):
    path = column["jsonPath"].removeprefix(".")
    if path.startswith("metadata."):
        return
    known = {each for each, _ in nodes(SCHEMA, "")}
    assert re.sub(r"\[.*\]", "[]", path) in known


def test_it_is_structural():
    for path, node in nodes(SCHEMA, ""):
        assert node["type"] in {"object", "array", "string", "integer", "boolean"}, (
            f"{path}: no floats, no alternatives"
        )
        assert not {"$ref", "anyOf", "oneOf", "allOf", "const", "title", "prefixItems"} & set(node), path
        assert not {"x-kubernetes-preserve-unknown-fields", "nullable", "default"} & set(node), path
        if node["type"] == "object" and path != "metadata":
            assert "properties" in node or "additionalProperties" in node, path


def test_everything_in_spec_is_bounded_so_that_rules_stay_cheap():
    for path, node in nodes(SPEC, "spec"):
        if node["type"] == "array":
            assert "maxItems" in node, path
        if node["type"] == "string":
            assert "maxLength" in node or "enum" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


def test_everything_in_status_is_bounded():
    for path, node in nodes(SCHEMA["properties"]["status"], "status"):
        if node["type"] == "array":
            assert "maxItems" in node, path
        if node["type"] == "string":
            assert "maxLength" in node or "enum" in node or path.endswith("lastTransitionTime"), path


def test_it_has_every_field_and_every_description():
    known = dict(nodes(SPEC, "spec"))
    for path, field in fields().items():
        if path.startswith("spec"):
            assert known[path]["description"], path
            if field.allowed and not field.kind.startswith("list"):
                assert known[path]["enum"] == list(field.allowed), path


def test_every_decimal_with_a_range_has_a_rule_that_says_it():
    decimals = [path for path, field in fields().items() if field.kind == "decimal" and field.range]
    found = rules()
    assert len(decimals) >= 19
    for path in decimals:
        assert any("double(self)" in each["rule"] for each in found[path]), path


@pytest.mark.parametrize("row", [row for row in ROWS if row["by"] == "Rule"], ids=lambda row: row["name"])
def test_every_row_that_a_rule_refuses_has_one_at_its_field(row):
    path = re.sub(r"\[\d+\]", "[]", row.get("server", row["path"]))
    assert path in rules()


def test_every_validator_over_several_fields_has_its_rules_beside_it():
    checked = {model for model in _models(WarpRunSpec).values() if model.__pydantic_decorators__.model_validators}
    with_rules = {model for model in _models(WarpRunSpec).values() if model.cel}
    assert checked == with_rules
    assert len(checked) >= 5


def test_conditions_are_a_map_by_type():
    conditions = SCHEMA["properties"]["status"]["properties"]["conditions"]
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])
    assert set(conditions["items"]["required"]) >= {"type", "status", "reason", "message"}


def test_the_largest_status_is_small():
    condition = {"type": "t" * 256, "status": "True", "reason": "r" * 256, "message": "m" * 512}
    condition |= {"observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    stage = {"id": "i" * 256, "state": "s" * 256, "attempts": 1, "progress": "p" * 256, "message": "m" * 512}
    status = ClusterStatus.model_validate({"conditions": [condition] * 16, "stages": [stage] * 64})
    assert len(status.model_dump_json(by_alias=True)) < 128 * 1024


def test_a_type_of_reward_asks_for_its_fields_and_forbids_the_others():
    found = {path: [each["rule"] for each in some] for path, some in rules().items()}
    assert found["spec.models.rewards[].url"] == [
        "!has(self.url) || self.type in ['Http']",
        "!(self.type in ['Http']) || has(self.url)",
    ]
    assert found["spec.models.rewards[].revision"] == ["!(self.type in ['Function', 'Http']) || has(self.revision)"]
    # `function` is a word of CEL.
    assert found["spec.models.rewards[].function"][0] == "!has(self.__function__) || self.type in ['Function']"


def test_a_rule_reads_a_field_or_its_default():
    rule = CelRule("batchSize", "{batchSize} % {numGenerations} == 0 && {+maxKl}", "no")
    assert expand(rule, Training) == {
        "rule": "(has(self.batchSize) ? self.batchSize : 128) % (has(self.numGenerations) ? self.numGenerations : 1) == 0"
        " && has(self.maxKl)",
        "message": "no",
        "fieldPath": ".batchSize",
    }


@pytest.mark.parametrize(
    ("interval", "rule"),
    [
        ("[0, 1]", "x >= 0.0 && x <= 1.0"),
        ("(0, 2]", "x > 0.0 && x <= 2.0"),
        ("[0, 1)", "x >= 0.0 && x < 1.0"),
        ("(0, inf)", "x > 0.0"),
        ("[-1000, 1000]", "x >= -1000.0 && x <= 1000.0"),
    ],
)
def test_an_interval_in_cel(interval, rule):
    assert in_interval("x", interval) == rule


def test_what_has_no_literal_is_our_mistake():
    assert (literal(True), literal(3), literal("a")) == ("true", "3", "'a'")
    with pytest.raises(TypeError, match="has no literal"):
        literal(0.5)


def test_reject_covers_exactly_the_outcome_fields():
    outcome = {path for path in leaf_fields() if change_class(path) is ChangeClass.OUTCOME}
    whole = {path.partition("[]")[0] for path in outcome}
    assert {each["fieldPath"].removeprefix(".") for each in reject_rules()} == whole
    by_path = {each["fieldPath"].removeprefix("."): each["rule"] for each in reject_rules()}
    for path in outcome:
        if "[]" in path:
            name = path.rpartition(".")[2]
            assert re.search(rf"\[i\]\.(__)?{name}(__)?[ )]", by_path[path.partition("[]")[0]]), path
    assert "timeoutSeconds" not in by_path["spec.models.rewards"]


def test_reject_holds_from_the_acceptance_on_and_never_for_an_edit_that_gives_it_up():
    for each in reject_rules():
        assert each["rule"].startswith("!(has(oldSelf.status) && has(oldSelf.status.acceptedSpecDigest)")
        assert "self.spec.updatePolicy == 'Reject'" in each["rule"]
        assert "oldSelf.spec.updatePolicy == 'Reject'" in each["rule"]
        assert "Restage" in each["message"]


def test_reject_knows_the_defaults_of_absent_sections():
    by_path = {each["fieldPath"]: each["rule"] for each in reject_rules()}
    assert (
        "(has(self.spec.merge) && has(self.spec.merge.litiRate) ? double(self.spec.merge.litiRate) : double('0.3'))"
        in by_path[".spec.merge.litiRate"]
    )
    assert ": (has(self.spec.prompts.evaluationSplit) ? -1 : 256))" in by_path[".spec.prompts.evaluationSplit.count"]
    assert "(self.spec.training.maxKl == 'Unlimited' ? -1e9 : double" in by_path[".spec.training.maxKl"]


def test_the_table_of_bad_specs_says_what_the_server_names():
    for row in ROWS:
        if "server" in row:
            assert row["path"].startswith(row["server"])
    assert spoil({}) == GOOD
