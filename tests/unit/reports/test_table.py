"""Rows, CSV, document and terminal summary of one front."""

import csv
import io
import json

import pytest

from warpctl.reports.estimate import estimate_front
from warpctl.reports.summary import front_table, load_front, plus_minus
from warpctl.reports.table import front_document, front_rows, to_csv


@pytest.fixture
def front(evaluated_run):
    return estimate_front(evaluated_run(controls=("NoAnchor",)), confidence_level=0.95, max_kl=20.0, num_replicates=100)


def test_the_csv_gives_back_every_number_exactly(front):
    rows = front_rows(front)

    again = list(csv.DictReader(io.StringIO(to_csv(rows), newline="")))

    assert len(again) == len(rows) == len(front.points)
    for written, read in zip(rows, again, strict=True):
        assert list(read) == list(written)
        for name, value in written.items():
            found = {"true": True, "false": False}[read[name]] if isinstance(value, bool) else read[name]
            assert type(value)(found) == value


def test_a_held_out_reward_that_was_not_evaluated_is_an_empty_cell(evaluated_run):
    with_held_out, without = evaluated_run(iterations=1), evaluated_run(iterations=1, held_out=False)
    front = estimate_front([*with_held_out[:-1], without[-1]], confidence_level=0.9, max_kl=20.0, num_replicates=50)

    rows = list(csv.DictReader(io.StringIO(to_csv(front_rows(front)), newline="")))

    assert rows[-1]["held_out.truth"] == rows[-1]["held_out.truth_low"] == ""
    assert float(rows[0]["held_out.truth"]) == front.points[0].held_out["truth"].mean


def test_no_point_keeps_an_impossible_budget(front):
    document = front_document(front, run="a/b", max_kl=-1.0)

    assert document["best"] is None
    assert front_table(document).best == ""
    assert front_table(document).best_row is None


def test_the_document_is_plain_json(front):
    document = front_document(front, run="default/demo", max_kl=200.0)

    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["points"][1]["label"] == "RL run 1"
    assert document["iterations"][0]["hypervolume"]["reward"]["mean"] == front.iterations[0].hypervolume["reward"].mean


def test_the_terminal_table_has_a_row_per_point_and_says_which_is_best(front):
    table = front_table(front_document(front, run="default/demo", max_kl=200.0))

    assert table.columns == ("ITER", "POINT", "KL", "REWARD", "TRUTH", "LENGTH", "FRONT")
    assert table.rows[0][:2] == ("-", "SFT")
    assert table.rows[table.best_row][:2] == ("2", "merged (LITI 1)")
    assert ": iteration 2, merged (LITI 1), held-out truth " in table.best
    assert table.rows[-1][:2] == ("NoAnchor", "whole run")
    assert table.best.startswith("best with KL at most 200: iteration 2, merged (LITI 1), held-out truth ")
    assert {row[-1] for row in table.rows} == {"", "*"}


def test_an_interval_is_shown_by_half_its_width():
    assert plus_minus({"mean": 1.834, "low": 1.7, "high": 1.9}) == "1.83 \u00b10.10"
    assert plus_minus(None) == "-"


class Views(dict):
    read_or_none = dict.get


def test_the_newest_front_of_a_run_is_read_from_its_view(front):
    document = front_document(front, run="ml/demo", max_kl=None)
    store = Views({"runs/ml/demo/report/front.json": json.dumps(document).encode()})

    assert load_front(store, namespace="ml", name="demo") == document
    assert "without a KL budget" in front_table(document).best


@pytest.mark.parametrize("data", [None, b"{half", b"[]"])
def test_a_view_that_cannot_be_read_is_no_front_yet(data):
    assert load_front(Views({"runs/ml/demo/report/front.json": data}), namespace="ml", name="demo") is None
