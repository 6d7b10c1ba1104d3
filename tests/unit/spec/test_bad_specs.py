"""Every row of tests/bad_specs/rows.yaml is refused at the field and with the words that it names, and nothing else is said."""

from __future__ import annotations

import re

import pytest

from tests.builders.bad_specs import FOLDER, ROWS, as_yaml, spoil
from warpctl.errors import SpecError
from warpctl.spec.fields import fields
from warpctl.spec.parse import parse_file, parse_text

INSIDE = re.compile(r"tuple\[|Input should|constrained|function-|extra_forbidden|pydantic|list\[|\bNone\b")


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
    assert not INSIDE.search(f"{problem} {problem.hint}"), "the inside of the parser is no reader's business"
    word = row["path"].rpartition(".")[2]
    if "is required" not in problem.message and "[" not in word:
        assert text.splitlines()[problem.line - 1].strip().removeprefix("- ").startswith(f"{word}:")


def test_the_table_is_large_and_says_who_refuses_each_row():
    assert len(ROWS) >= 40
    assert {row["by"] for row in ROWS} == {"Schema", "Rule", "Strict", "Nobody"}
    assert len({row["name"] for row in ROWS}) == len(ROWS)


def test_every_decimal_field_refuses_an_unquoted_number():
    decimals = [path for path, field in fields().items() if field.kind == "decimal" and "[]" not in path]
    assert len(decimals) > 15
    for path in decimals:
        with pytest.raises(SpecError) as caught:
            parse_text(as_yaml(spoil({"set": {path: 0.5}})), source="bad.yaml")
        assert [(each.path, each.hint) for each in caught.value.problems] == [(path, 'quote it: "0.5"')]
