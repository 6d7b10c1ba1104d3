"""Every row of tests/bad_specs/rows.yaml is refused at the field and with the words that it names, and nothing else is said."""

from __future__ import annotations

import copy
import io
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from warpctl.errors import SpecError
from warpctl.spec.fields import fields
from warpctl.spec.parse import parse_file, parse_text

FOLDER = Path(__file__).parents[2] / "bad_specs"
GOOD = YAML(typ="safe").load(FOLDER / "good.yaml")
ROWS = YAML(typ="safe").load(FOLDER / "rows.yaml")


def spoil(row):
    """good.yaml with the changes of a row, as data."""
    data = copy.deepcopy(GOOD)
    for path, value in row.get("set", {}).items():
        holder, last = _holder(data, path)
        holder[last] = value
    for path in row.get("remove", []):
        holder, last = _holder(data, path)
        del holder[last]
    return data


def _holder(data, path):
    *steps, last = [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]
    for step in steps:
        data = data.setdefault(step, {}) if isinstance(data, dict) else data[step]
    return data, last


def as_yaml(data):
    stream = io.StringIO()
    writer = YAML(typ="rt")
    writer.default_flow_style = False
    writer.dump(data, stream)
    return stream.getvalue()


def test_the_good_spec_is_accepted():
    assert parse_file(FOLDER / "good.yaml").full_name == "ml/good"


@pytest.mark.parametrize("row", ROWS, ids=[row["name"].replace(" ", "-") for row in ROWS])
def test_a_bad_spec_is_refused_where_and_why(row):
    text = as_yaml(spoil(row))
    with pytest.raises(SpecError) as caught:
        parse_text(text, source="bad.yaml")
    assert [problem.path for problem in caught.value.problems] == [row["path"]]
    (problem,) = caught.value.problems
    assert row["message"] in problem.message
    assert row.get("hint", "") in problem.hint
    assert problem.source == "bad.yaml"
    word = re.sub(r"\[\d+\]", "", row["path"].rpartition(".")[2])
    if "is required" not in problem.message and "[" not in row["path"].rpartition(".")[2]:
        assert text.splitlines()[problem.line - 1].strip().removeprefix("- ").startswith(f"{word}:")


def test_the_table_is_large_and_says_who_refuses_each_row():
    assert len(ROWS) >= 40
    assert {row["by"] for row in ROWS} == {"Schema", "Rule", "Strict"}
    assert len({row["name"] for row in ROWS}) == len(ROWS)


def test_no_message_shows_the_inside_of_the_parser():
    inside = re.compile(r"tuple\[|Input should|constrained|function-|extra_forbidden|pydantic|list\[|\bNone\b")
    for row in ROWS:
        with pytest.raises(SpecError) as caught:
            parse_text(as_yaml(spoil(row)), source="bad.yaml")
        for problem in caught.value.problems:
            assert not inside.search(f"{problem} {problem.hint}"), row["name"]


def test_every_decimal_field_refuses_an_unquoted_number():
    decimals = [path for path, field in fields().items() if field.kind == "decimal" and "[]" not in path]
    assert len(decimals) > 15
    for path in decimals:
        with pytest.raises(SpecError) as caught:
            parse_text(as_yaml(spoil({"set": {path: 0.5}})), source="bad.yaml")
        assert [(each.path, each.hint) for each in caught.value.problems] == [(path, 'quote it: "0.5"')]
