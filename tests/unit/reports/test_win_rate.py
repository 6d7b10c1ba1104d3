"""Win rates against counting, the length control against a hand-made case and an independent optimiser, grades, ties."""

import math

import numpy as np
import pytest

from tests.builders.fronts import make_named, make_point
from warpctl.errors import InputError
from warpctl.reports.win_rate import grade, length_controlled, outcomes, win_rates


def evaluated(name, scores, *, texts=None, lengths=None, held_out=True, iteration=1, control="", num_generations=1):
    count = len(scores)
    point = make_point(num_prompts=count // num_generations, num_generations=num_generations, held_out=None)
    values = {
        "completions": tuple(texts or (f"{name} {control} {iteration} {number}" for number in range(count))),
        "lengths": tuple(lengths or [10] * count),
        "reward": tuple(map(float, scores)),
        "held_out": {"truth": tuple(map(float, scores))} if held_out else {},
    }
    return make_named(name, type(point)(**{**vars(point), **values}), iteration=iteration, control=control)


def only(*pairs, **settings):
    (rate,) = win_rates(pairs, num_replicates=200, **settings)
    return rate


def test_wins_are_counted_and_ties_are_half():
    rate = only(evaluated("sft", [0, 1, 2, 3]), evaluated("member/1", [1, 0, 2, 9]))

    assert (rate.first, rate.second) == ("RL run 1, iteration 1", "SFT")
    assert rate.win_rate == (1 + 0 + 0.5 + 1) / 4
    assert (rate.num_ties, rate.num_prompts, rate.num_comparisons) == (1, 4, 4)
    assert 0 <= rate.low < rate.win_rate < rate.high <= 1


def test_equal_texts_tie_whatever_rounding_made_of_their_scores():
    rate = only(
        evaluated("sft", [1, 1], texts=["same", "a"]), evaluated("member/1", [1 + 1e-7, 2], texts=["same", "b"])
    )

    assert rate.num_ties == 1
    assert rate.win_rate == 0.75


def test_the_held_out_reward_judges_and_the_trained_on_one_where_there_is_none():
    for held_out, judge in ((True, "truth"), (False, "reward")):
        sft, member = (evaluated(name, [0, 1, 2], held_out=held_out) for name in ("sft", "member/1"))
        rate = only(sft, member)
        assert (rate.judge, rate.is_held_out) == (judge, held_out)
    assert only(evaluated("sft", [0, 1]), evaluated("member/1", [1, 2]), judge="reward").judge == "reward"


def test_completions_of_one_prompt_are_resampled_together():
    """Two prompts of a hundred completions, one always won and one always lost: the truth may be anything."""
    rate = only(
        evaluated("sft", [0] * 200, num_generations=100),
        evaluated("member/1", [1] * 100 + [-1] * 100, num_generations=100),
    )

    assert (rate.win_rate, rate.low, rate.high) == (0.5, 0.0, 1.0)


def test_the_contests_of_a_run_with_two_iterations_and_a_control():
    run = [evaluated("sft", [0, 1]), *(evaluated(f"member/{m}", [1, 0]) for m in (1, 2)), evaluated("liti/1", [2, 2])]
    run += [evaluated("member/1", [3, 3], iteration=2), evaluated("liti/1", [4, 4], iteration=2)]
    run += [evaluated("liti/1", [0, 5], control="NoAnchor"), evaluated("liti/0.5", [1, 5])]

    found = [(rate.first, rate.second) for rate in win_rates(run, num_replicates=20)]

    one, two = "merged (LITI 1), iteration 1", "merged (LITI 1), iteration 2"
    assert found == [
        (one, "SFT"),
        (one, "RL run 1, iteration 1"),
        (one, "RL run 2, iteration 1"),
        ("RL run 1, iteration 1", "SFT"),
        ("RL run 2, iteration 1", "SFT"),
        (two, "SFT"),
        (two, "RL run 1, iteration 2"),
        (two, one),
        ("RL run 1, iteration 2", "SFT"),
        (two, "whole run, control NoAnchor"),
    ]


def test_half_a_run_has_the_contests_that_it_has():
    assert win_rates([evaluated("sft", [0, 1])]) == ()
    assert win_rates([evaluated("member/1", [0, 1])]) == ()
    assert len(win_rates([evaluated("member/1", [0, 1]), evaluated("liti/1", [0, 2])])) == 1


def test_other_prompts_are_refused():
    with pytest.raises(InputError, match="not evaluated on the same prompts"):
        win_rates([evaluated("sft", [0, 1]), evaluated("member/1", [0, 1, 2])])


def test_a_policy_that_wins_by_length_alone_is_brought_back_to_even():
    """Wins are a coin with log-odds 3 tanh(d / std(d)): longer ones win, and the first policy is mostly longer."""
    generator = np.random.default_rng(0)
    lengths = generator.normal(8.0, 6.0, size=(4000, 1))
    chance = 1 / (1 + np.exp(-3 * np.tanh(lengths / lengths.std())))
    wins = (generator.random(lengths.shape) < chance).astype(float)

    controlled, _ = length_controlled(wins, lengths, np.ones((1, 4000)))

    assert wins.mean() > 0.8
    assert controlled == pytest.approx(0.5, abs=0.05)


def test_the_fit_is_the_maximum_of_the_penalised_likelihood():
    generator = np.random.default_rng(1)
    wins, lengths = generator.choice([0.0, 0.5, 1.0], size=(30, 2)), generator.integers(-9, 9, size=(30, 2))
    term = np.tanh(lengths / lengths.std())

    def loss(theta, phi):
        odds = theta + phi * term
        return (wins * np.logaddexp(0, -odds) + (1 - wins) * np.logaddexp(0, odds)).sum() + (theta**2 + phi**2) / 200

    theta, phi, width = 0.0, 0.0, 1.0
    while width > 1e-7:  # pattern search: slow, and knows nothing of derivatives
        around = [(theta + a * width, phi + b * width) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        best = min(around, key=lambda at: loss(*at))
        theta, phi, width = (*best, width) if loss(*best) < loss(theta, phi) else (theta, phi, width / 2)

    assert length_controlled(wins, lengths, np.ones((1, 30)))[0] == pytest.approx(1 / (1 + math.exp(-theta)), abs=1e-6)


def test_replicates_weigh_prompts_by_how_often_they_were_drawn():
    generator = np.random.default_rng(2)
    wins, lengths = generator.choice([0.0, 1.0], size=(40, 1)), generator.normal(size=(40, 1))
    counts = np.array([[1] * 40, [2, 0] * 20, [0, 3, 0, 1] * 10])

    estimate, replicates = length_controlled(wins, lengths, counts)

    # every prompt with a twin of its own, the draws of one shared out between both
    shared = np.concatenate([counts - counts // 2, counts // 2], axis=1)
    _, twins = length_controlled(np.tile(wins, (2, 1)), np.tile(lengths, (2, 1)), shared)
    assert replicates[0] == pytest.approx(estimate, abs=1e-6)
    assert replicates == pytest.approx(twins, abs=1e-4)
    assert replicates[1] != pytest.approx(estimate, abs=1e-3)


@pytest.mark.parametrize("lengths", [[5.0] * 50, [0.0] * 50])
def test_without_a_difference_in_lengths_the_control_changes_nothing_to_speak_of(lengths):
    wins = np.array([1.0] * 35 + [0.0] * 15)[:, None]

    assert length_controlled(wins, np.array(lengths)[:, None], np.ones((1, 50)))[0] == pytest.approx(0.7, abs=0.002)


def test_a_policy_that_always_wins_keeps_a_finite_number():
    rate = only(evaluated("sft", [0] * 64), evaluated("member/1", [1] * 64, lengths=list(range(64))))

    assert rate.win_rate == 1.0
    assert 0.95 < rate.length_controlled_low <= rate.length_controlled <= rate.length_controlled_high < 1


def test_the_two_orders_of_a_contest_mirror_each_other():
    gains = np.array([0.3, -0.2, 0.0, 2.0])

    assert (outcomes(gains) + outcomes(-gains) == 1).all()
    assert (grade(gains) == -grade(-gains)).all()


def test_grades_are_by_the_difference_in_standard_deviations():
    assert grade([0.0, 0.2, 0.5, 0.99, 1.0, 7.0, -0.2, -0.7, -3.0]).tolist() == [
        0.0, 0.5, 1.0, 1.0, 1.5, 1.5, -0.5, -1.0, -1.5,
    ]  # fmt: skip


def test_the_grades_of_a_contest_are_in_units_of_sft_scores():
    sft, member = evaluated("sft", [0, 4, 0, 4]), evaluated("member/1", [1, 4, 3, 5.9])  # SFT's deviation is 2

    assert only(sft, member).graded.mean == pytest.approx((1.0 + 0.0 + 1.5 + 1.0) / 4)
    assert only(evaluated("sft", [1, 1]), evaluated("member/1", [2, 2])).graded is None
