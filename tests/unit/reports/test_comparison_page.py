"""Fronts of several runs on one page: what is compared, what is refused, what is said."""

import dataclasses
import re

import pytest

from warpctl.errors import InputError
from warpctl.reports.comparison_page import (
    RunEvaluations,
    SpecDifference,
    compare_runs,
    comparison_figures,
    render_comparison,
)
from warpctl.reports.plotted import KL
from warpctl.storage.manifest import digest_of

SETTINGS = {"confidence_level": 0.95, "max_kl": 20.0}


def run_of(name, evaluated, **identity):
    """The run with this said about where its points come from."""
    changed = []
    for named, point in evaluated:
        new = dataclasses.replace(point, identity={**point.identity, **identity})
        changed.append((dataclasses.replace(named, point_key=new.key, digest=digest_of(new.to_bytes())), new))
    return RunEvaluations(name, changed, ())


def test_every_further_run_is_held_against_the_first(evaluated_run):
    runs = [run_of(name, evaluated_run(iterations=i)) for name, i in (("a", 1), ("b", 2), ("c", 3))]

    compared = compare_runs(runs, **SETTINGS)

    assert [(each.first, each.second) for each in compared.differences] == [("a", "b"), ("a", "c")]
    assert [run.iteration for run in compared.runs] == [1, 2, 3]
    assert compared.measures == ("reward", "truth")
    assert compared.notes() == []


def test_another_sft_policy_is_refused_with_both_digests(evaluated_run):
    runs = [run_of("a", evaluated_run(), sft="1" * 64), run_of("b", evaluated_run(), sft="2" * 64)]

    with pytest.raises(InputError, match=r"a and b start from different SFT policies \(111111111111, 222222222222\)"):
        compare_runs(runs, **SETTINGS)


def test_no_reward_in_common_is_refused(evaluated_run):
    runs = [
        run_of("a", evaluated_run(held_out=False), rewards=[{"name": "one"}]),
        run_of("b", evaluated_run(held_out=False), rewards=[{"name": "two"}]),
    ]

    with pytest.raises(InputError, match="a, b were judged by no reward in common"):
        compare_runs(runs, **SETTINGS)


def test_a_run_without_a_front_is_named(evaluated_run, named_point, evaluated_point):
    lonely = RunEvaluations("b", [named_point("sft", evaluated_point(), liti_rate="0")], ())

    with pytest.raises(InputError, match=r"^b: no iteration of the run has a front yet"):
        compare_runs([run_of("a", evaluated_run()), lonely], **SETTINGS)


def test_what_differs_beside_the_front_is_said_and_only_common_rewards_are_shown(evaluated_run):
    runs = [
        run_of("a", evaluated_run(), sampling={"temperature": "0.9"}),
        run_of("b", evaluated_run(held_out=False), sampling={"temperature": "1"}),
    ]

    compared = compare_runs(runs, **SETTINGS)
    html = render_comparison(compared, figures=(), spec_differences=[])

    assert compared.measures == ("reward",)
    assert "<li>b and a: the runs sample differently" in html
    assert "truth" not in html.partition("<script")[0]


def page(runs, **options):
    return render_comparison(compare_runs(runs, **SETTINGS), figures=(), **{"spec_differences": [], **options})


def test_the_page_has_points_differences_and_fields_of_each_run(evaluated_run):
    field = SpecDifference("spec.training.klCoefficient", "Outcome", ["0.1", "<b>"])

    html = page([run_of("a", evaluated_run(iterations=1)), run_of("b", evaluated_run())], spec_differences=[field])

    rows = [
        " ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in re.findall(r"<tr[^>]*>(.*?)</tr>", html, re.DOTALL)
    ]
    assert len([row for row in rows if row.startswith("LITI 0.3")]) == 2
    assert len([row for row in rows if row.startswith("b minus a ")]) == 2
    assert "spec.training.klCoefficient Outcome 0.1 &lt;b&gt;" in rows
    assert "<b>" not in html
    assert "paired by prompt" in html


def test_a_shared_sft_policy_is_drawn_once_and_others_start_their_own_line(evaluated_run):
    drawn = []

    def draw(spec):
        drawn.append(spec)
        return "<svg xmlns='http://www.w3.org/2000/svg'/>"

    shared = compare_runs([run_of("a", evaluated_run()), run_of("b", evaluated_run())], **SETTINGS)
    apart = compare_runs([run_of("a", evaluated_run(), seed=1), run_of("b", evaluated_run(), seed=2)], **SETTINGS)
    for compared in (shared, apart):
        comparison_figures(compared, draw)

    points = [
        next(layer for layer in spec["layer"] if layer["mark"]["type"] == "point")["data"]["values"] for spec in drawn
    ]
    of_shared, of_apart = points[0], points[-1]
    assert [value["series"] for value in of_shared].count("SFT") == 1
    assert {value["series"] for value in of_apart} == {"run 1", "run 2"}
    assert len(of_apart) == len(of_shared) + 1
    assert KL in of_shared[1]["tip"].lower()
    assert of_shared[1]["tip"].startswith("a, iteration 2, LITI 0.15\n")
