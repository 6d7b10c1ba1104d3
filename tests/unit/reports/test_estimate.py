"""The front of a run from its points: means, pairing, hypervolume, what belongs to which line."""

import dataclasses

import numpy as np
import pytest

from warpctl.errors import InputError
from warpctl.reports.estimate import distinct, estimate_front
from warpctl.reports.front import hypervolume


def estimate(evaluated, **settings):
    return estimate_front(evaluated, **{"confidence_level": 0.95, "max_kl": 20.0, "num_replicates": 300, **settings})


def test_means_are_over_completions_and_intervals_hold_them(evaluated_run):
    evaluated = distinct(evaluated_run())

    front = estimate(evaluated)

    for (named, point), shown in zip(evaluated, front.points, strict=True):
        assert shown.named == named
        assert shown.reward.mean == pytest.approx(np.mean(point.reward), abs=1e-12)
        assert shown.kl.mean == pytest.approx(np.mean(point.kl_rb), abs=1e-12)
        assert shown.held_out["truth"].mean == pytest.approx(np.mean(point.held_out["truth"]), abs=1e-12)
        assert shown.length.mean == pytest.approx(np.mean(point.lengths), abs=1e-12)
        assert shown.reward.low < shown.reward.mean < shown.reward.high


def test_the_sft_policy_is_one_point_of_iteration_0_however_often_it_was_evaluated(evaluated_run):
    front = estimate(evaluated_run(iterations=3, controls=("NoAnchor",)))

    assert [(p.named.iteration, p.named.control) for p in front.points if p.named.name == "sft"] == [(0, "")]
    assert front.points[0].named.name == "sft"


def test_points_are_ordered_by_iteration_then_members_then_rate_with_controls_last(evaluated_run):
    shuffled = evaluated_run(iterations=2, members=1, rates=("1", "0.3"), controls=("NoAnchor",))[::-1]

    found = [(p.named.control, p.named.iteration, p.named.name) for p in estimate(shuffled).points]

    assert found == [
        ("", 0, "sft"),
        ("", 1, "member/1"),
        ("", 1, "liti/0.3"),
        ("", 1, "liti/1"),
        ("", 2, "member/1"),
        ("", 2, "liti/0.3"),
        ("", 2, "liti/1"),
        ("NoAnchor", 0, "liti/0.3"),
        ("NoAnchor", 0, "liti/1"),
    ]


def test_an_iterations_hypervolume_is_that_of_sft_and_its_rates_alone(evaluated_run):
    evaluated = distinct(evaluated_run(iterations=2, controls=("NoAnchor",)))
    line = [p for n, p in evaluated if not n.control and (n.name == "sft" or (n.iteration == 2 and "liti" in n.name))]
    kl, reward = [np.mean(p.kl_rb) for p in line], [np.mean(p.reward) for p in line]

    second = estimate(evaluated).iterations[1]

    expected = hypervolume(kl, reward, max_kl=20.0, reference_reward=reward[0])
    assert second.iteration == 2
    assert second.hypervolume["reward"].mean == pytest.approx(float(expected), abs=1e-9)
    assert second.hypervolume["reward"].low < second.hypervolume["reward"].mean < second.hypervolume["reward"].high


def test_a_control_is_never_on_the_runs_front_and_never_takes_a_point_off_it(
    evaluated_run, evaluated_point, named_point
):
    wonder = named_point("liti/1", evaluated_point(kl=0.01, reward=50.0), iteration=0, control="NoAnchor")
    run = evaluated_run()

    with_control = estimate([*run, wonder])

    assert not with_control.points[-1].is_on_front
    assert [p.is_on_front for p in with_control.points[:-1]] == [p.is_on_front for p in estimate(run).points]


def test_rewards_are_read_only_at_kls_that_the_front_reaches(evaluated_run):
    first = estimate(evaluated_run(iterations=1)).iterations[0]  # the merged policy has a KL of about 5.5

    assert set(first.reward_at_kl["reward"]) == {0.5, 1.0, 2.0, 5.0}


def test_half_a_run_has_half_a_front(evaluated_run, evaluated_point, named_point):
    only_sft = estimate([named_point("sft", evaluated_point(kl=0.0), liti_rate="0")])
    without_sft = estimate([pair for pair in evaluated_run(iterations=1) if pair[0].name != "sft"])

    assert (len(only_sft.points), only_sft.iterations) == (1, ())
    assert (len(without_sft.points), without_sft.iterations) == (7, ())


def test_a_missing_held_out_reward_leaves_that_measure_out_and_nothing_else(evaluated_run):
    run = evaluated_run(iterations=1)
    named, point = run[-1]
    run[-1] = (named, dataclasses.replace(point, held_out={}))

    front = estimate(run)

    assert front.points[-1].measure("truth") is None
    assert set(front.iterations[0].hypervolume) == {"reward"}


def test_the_same_points_give_the_same_numbers(evaluated_run):
    assert estimate(evaluated_run()) == estimate(evaluated_run())


def test_points_on_different_prompts_are_refused(evaluated_run, evaluated_point, named_point):
    other = named_point("liti/0.9", evaluated_point(num_prompts=5), liti_rate="0.9")

    with pytest.raises(InputError, match="not evaluated on the same prompts"):
        estimate([*evaluated_run(), other])


def test_no_point_at_all_is_refused():
    with pytest.raises(InputError, match="no evaluated point yet"):
        estimate([])
