"""Differences between the fronts of two runs: paired ones, unpaired ones, what may be compared at all."""

from dataclasses import replace

import pytest

from tests.builders.fronts import make_named, make_point, make_run
from warpctl.errors import InputError
from warpctl.reports.comparison import compare, output_line


def line(reward=2.0, *, seed=3, num_prompts=64, identity=None, held_out=True, kl=9.0):
    """A run with SFT at (0, 0) and one merged policy."""

    def point(kl, reward):
        made = make_point(
            kl=kl, reward=reward, held_out=reward / 2 if held_out else None, seed=seed, num_prompts=num_prompts
        )
        return replace(made, identity={**made.identity, **(identity or {})})

    sft = replace(point(0.0, 0.0), kl_rb=(0.0,) * num_prompts)
    return [make_named("sft", sft, liti_rate="0"), make_named("liti/1", point(kl, reward))]


def compared(first, second, **settings):
    return compare(first, second, confidence_level=0.95, max_kl=20.0, num_replicates=300, **settings)


def test_a_run_does_not_differ_from_itself():
    found = compared(make_run(), make_run())

    assert found.is_paired
    assert found.notes == ()
    for measure in found.measures:
        for contrast in (measure.hypervolume, measure.area, *measure.reward_at_kl.values()):
            assert (contrast.difference.mean, contrast.difference.low, contrast.difference.high) == (0, 0, 0)
            assert contrast.first == contrast.second
    assert [measure.measure for measure in found.measures] == ["reward", "truth"]


def test_the_difference_is_second_minus_first_and_its_noise_is_cancelled_by_pairing():
    """The second run's rewards are the first's plus one half, prompt by prompt: the difference has no noise at all."""
    found = compared(line(2.0), line(2.5))
    (reward, _) = found.measures

    at = reward.reward_at_kl[5.0]
    assert at.difference.mean == pytest.approx(at.second.mean - at.first.mean)
    assert 0 < at.difference.low <= at.difference.high
    assert at.difference.high - at.difference.low < 0.3 * (at.first.high - at.first.low)
    assert reward.hypervolume.difference.low > 0
    assert reward.area.difference.low > 0
    assert found.kl_limits[0] == 0.0


def test_other_prompts_are_resampled_apart_and_it_is_said():
    found = compared(line(2.0), line(2.5, num_prompts=50))

    assert not found.is_paired
    assert found.num_prompts == (64, 50)
    assert any("not paired" in note for note in found.notes)
    at = found.measures[0].reward_at_kl[5.0]
    assert at.difference.high - at.difference.low > 0.8 * (at.first.high - at.first.low)


@pytest.mark.parametrize(
    ("identity", "note"),
    [
        ({"sft": "other"}, "different SFT policies"),
        ({"sampling": {"temperature": "1"}}, "sample differently"),
        ({"seed": 99}, "different sampling seeds"),
    ],
)
def test_what_makes_runs_unlike_is_noted(identity, note):
    (found,) = compared(line(), line(identity=identity)).notes

    assert note in found


def test_another_reward_of_the_same_name_is_not_compared():
    identity = {"rewards": [{"name": "learned", "content": "x"}], "heldOutRewards": [{"name": "truth", "content": "y"}]}
    other = {**identity, "rewards": [{"name": "learned", "content": "z"}]}

    found = compared(line(identity=identity), line(identity=other))

    assert [measure.measure for measure in found.measures] == ["truth"]
    assert found.notes == ("the runs mean different rewards by reward: not compared",)
    assert [each.measure for each in compared(line(), line(held_out=False)).measures] == ["reward"]


def test_only_kls_that_both_reach_are_compared():
    found = compared(line(kl=2.5), line(kl=15.0))

    assert set(found.measures[0].reward_at_kl) == {0.5, 1.0, 2.0}
    assert found.kl_limits[1] == pytest.approx(2.5, rel=0.2)


def test_the_output_is_the_last_iterations_line_unless_another_is_asked_for():
    run = make_run(iterations=2, controls=("NoAnchor",))

    names = [(named.iteration if named.name != "sft" else 0, named.name) for named, _ in output_line(run)]
    assert names == [(0, "sft"), *((2, f"liti/{rate}") for rate in ("0.15", "0.3", "0.5", "0.75", "1"))]
    assert compared(run, run, iterations=(1, 2)).iterations == (1, 2)
    for bad in (lambda: output_line(run, iteration=3), lambda: output_line(run[:1]), lambda: output_line(run[1:2])):
        with pytest.raises(InputError, match="has a front yet"):
            bad()
