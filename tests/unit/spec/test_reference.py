"""docs/spec.md and the JSON schema are made from the models and say everything about every field."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from tests.builders.bad_specs import GOOD, ROWS, spoil
from warpctl.spec.change_class import change_class, leaf_fields
from warpctl.spec.fields import fields
from warpctl.spec.messages import HINTS, PATTERNS
from warpctl.spec.reference import SYMBOLS, json_schema, markdown

ROOT = Path(__file__).parents[3]


def test_the_page_in_docs_is_up_to_date():
    written = (ROOT / "docs" / "spec.md").read_text()
    assert written == markdown(), "run: python -m warpctl.spec.reference > docs/spec.md"


def test_the_module_prints_the_page():
    shown = subprocess.run(
        [sys.executable, "-m", "warpctl.spec.reference"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout == markdown()


def test_every_field_has_a_docstring_that_ends_a_sentence():
    for path, field in fields().items():
        assert field.doc, path
        assert field.doc.endswith((".", ").")), path


def test_every_field_is_in_the_page_with_its_class():
    rows = {line.split("`")[1]: line for line in markdown().splitlines() if line.startswith("| `")}
    for path in leaf_fields():
        kind, _, rest = path.removeprefix("spec.compute.").partition(".")
        shown = f"spec.compute.rl.{rest}" if path.startswith("spec.compute.") and kind != "rl" else path
        assert f"| {change_class(path)} |" in rows[shown]


def test_every_number_has_a_range_and_every_enumeration_its_values():
    for path, field in leaf_fields().items():
        if field.kind in {"decimal", "integer", "list of integers", "list of decimals"}:
            assert field.range, path
        if field.kind in {"enumeration", "list of enumerations"}:
            assert field.allowed, path


@pytest.mark.parametrize("path", list(SYMBOLS))
def test_a_symbol_stands_in_the_docstring_of_its_field(path):
    assert SYMBOLS[path] in re.findall(r"\w+", fields()[path].doc)


def test_hints_and_patterns_belong_to_fields_that_exist():
    assert set(HINTS) <= set(fields())
    assert {field.pattern for field in fields().values()} >= set(PATTERNS)


def test_a_default_reads_as_its_author_wrote_it():
    defaults = {path: field.default for path, field in fields().items()}
    assert defaults["spec.training.optimizer.learningRate"] == '"1e-6"'
    assert defaults["spec.algorithmVersion"] == '"1"'
    assert defaults["spec.training.batchSize"] == "128"
    assert defaults["spec.training.maxKl"] == '"200"'
    assert defaults["spec.models.rewards[].revision"] == "main"
    assert fields()["spec.models.rewards[].revision"].required_in == ("Function", "Http")
    assert defaults["spec.storage.uri"] is None


def test_the_schema_accepts_the_good_spec_and_is_a_schema():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(GOOD)
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["by"] != "Rule"], ids=lambda row: row["name"].replace(" ", "-")
)
def test_the_schema_refuses_what_the_parser_refuses(row):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json_schema()).validate(spoil(row))
