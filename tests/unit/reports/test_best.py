"""Which point is the best one: by the held-out reward, within the budget, the same from a Front and from its front.json."""

import json

import pytest

from tests.builders.fronts import make_named, make_point
from warpctl.reports.best import best_entry, best_point
from warpctl.reports.estimate import estimate_front
from warpctl.reports.table import front_document


def front_of(*points, control=()):
    """Points of (KL, trained-on reward, held-out reward or None), after SFT at 0."""
    evaluated = [make_named("sft", make_point(kl=0, reward=0, held_out=points[0][2] and 0.0, seed=7), liti_rate="0")]
    for number, (kl, reward, held_out) in enumerate(points, start=1):
        point = make_point(kl=kl, reward=reward, held_out=held_out, seed=7)
        evaluated.append(make_named(f"member/{number}", point, control="NoAnchor" if number in control else ""))
    return estimate_front(evaluated, confidence_level=0.95, max_kl=20.0, num_replicates=20)


def test_a_hacked_point_is_not_the_best_though_its_trained_on_reward_is_the_highest():
    chosen = best_point(front_of((4, 2.0, 1.5), (9, 3.0, 0.5)), max_kl=200.0)

    assert chosen.point.named.name == "member/1"
    assert chosen.measure == "truth"
    assert chosen.why == "highest held-out reward truth among 3 points with KL at most 200"


def test_without_a_held_out_reward_the_trained_on_one_decides_and_that_is_said():
    chosen = best_point(front_of((4, 2.0, None), (9, 3.0, None)), max_kl=None)

    assert chosen.point.named.name == "member/2"
    assert chosen.why == "highest trained-on reward (there is no held-out one) among 3 points"


@pytest.mark.parametrize(("max_kl", "name"), [(None, "member/2"), (10.0, "member/1"), (1.0, "sft")])
def test_the_budget_rules_points_out(max_kl, name):
    assert best_point(front_of((4, 2.0, 1.5), (19, 3.0, 2.5)), max_kl=max_kl).point.named.name == name


def test_a_control_is_never_the_best():
    assert best_point(front_of((4, 2.0, 1.5), (9, 3.0, 2.5), control=(2,)), max_kl=None).point.named.name == "member/1"


def test_no_point_keeps_an_impossible_budget():
    assert best_point(front_of((4, 2.0, 1.5)), max_kl=-1.0) is None


def test_of_equal_rewards_the_lower_kl_is_better():
    assert best_point(front_of((9, 2.0, 1.5), (4, 2.0, 1.5)), max_kl=None).point.named.name == "member/2"


@pytest.mark.parametrize("max_kl", [None, 10.0, -1.0])
def test_the_document_chooses_as_the_front_does(max_kl):
    front = front_of((4, 2.0, 1.5), (19, 3.0, 2.5), (5, 9.0, 9.0), control=(3,))
    document = json.loads(json.dumps(front_document(front, run="a/b", max_kl=max_kl)))

    chosen, entry = best_point(front, max_kl=max_kl), best_entry(document, max_kl=max_kl)

    if chosen is None:
        assert entry is None
        assert document["best"] is None
    else:
        assert (entry.entry["name"], entry.why, entry.measure) == (chosen.point.named.name, chosen.why, chosen.measure)
        assert (document["best"]["name"], document["best"]["why"]) == (chosen.point.named.name, chosen.why)


def test_points_that_are_gone_are_passed_over():
    document = front_document(front_of((4, 2.0, 1.5), (9, 3.0, 2.5)), run="a/b", max_kl=None)

    chosen = best_entry(document, max_kl=None, is_available=lambda entry: entry["name"] != "member/2")

    assert chosen.entry["name"] == "member/1"
