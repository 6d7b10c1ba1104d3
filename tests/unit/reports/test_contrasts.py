"""Which fronts of one run are compared with which."""

import pytest

from warpctl.reports.comparison import compare
from warpctl.reports.contrasts import contrasts

SETTINGS = {"confidence_level": 0.95, "max_kl": 20.0}


def test_iterations_meet_the_one_before_and_the_last_one_meets_every_control(evaluated_run):
    found = contrasts(evaluated_run(iterations=3, controls=("NoAnchor", "ComputeMatched")), **SETTINGS)

    assert [(each.first, each.second) for each in found] == [
        ("iteration 1", "iteration 2"),
        ("iteration 2", "iteration 3"),
        ("control ComputeMatched", "iteration 3"),
        ("control NoAnchor", "iteration 3"),
    ]
    assert [each.comparison.iterations for each in found] == [(1, 2), (2, 3), (1, 3), (1, 3)]
    assert all(each.comparison.is_paired and each.comparison.notes == () for each in found)


def test_the_numbers_are_those_of_comparing_two_runs(evaluated_run):
    run = evaluated_run(iterations=2)

    (found,) = contrasts(run, **SETTINGS)

    assert found.comparison == compare(run, run, iterations=(1, 2), **SETTINGS)


def test_a_control_that_equals_the_run_differs_by_nothing(evaluated_run, named_point):
    run = evaluated_run(iterations=1)
    own = [pair for pair in run if pair[0].name.startswith("liti/")]
    control = [
        named_point(named.name, point, iteration=0, control="ComputeMatched", liti_rate=str(named.liti_rate))
        for named, point in own
    ]

    (found,) = contrasts([*run, *control], **SETTINGS)

    difference = found.comparison.measures[0].area.difference
    assert (difference.mean, difference.low, difference.high) == pytest.approx((0, 0, 0))


def test_fronts_that_are_not_there_yet_are_left_out(evaluated_run, named_point, evaluated_point):
    lonely = named_point("sft", evaluated_point(), iteration=0, control="NoAnchor", liti_rate="0")

    assert contrasts([lonely], **SETTINGS) == ()
    assert contrasts([*evaluated_run(iterations=1), lonely], **SETTINGS) == ()
