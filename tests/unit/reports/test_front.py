"""The vectorised front against brute force, and reward at fixed KL against numbers worked out by hand."""

import itertools
import math

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpctl.reports.front import area_between, hypervolume, non_dominated, reward_at_kl

# Few distinct values, so that ties and equal points are common.
coordinates = st.one_of(st.integers(0, 4).map(float), st.floats(0, 50, allow_nan=False))
point_lists = st.lists(st.tuples(coordinates, coordinates.map(lambda value: value - 10)), min_size=1, max_size=12)


def brute_force_front(points):
    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    return [not any(beats(other, point) for other in points) for point in points]


def brute_force_hypervolume(points, max_kl, reference):
    """Cut the plane along every coordinate; sum the cells that some point dominates."""
    kls = sorted({*(min(max(kl, 0.0), max_kl) for kl, _ in points), max_kl})
    rewards = sorted({reference, *(reward for _, reward in points if reward > reference)})
    area = 0.0
    for left, right in itertools.pairwise(kls):
        for low, high in itertools.pairwise(rewards):
            if any(kl <= left and reward >= high for kl, reward in points):
                area += (right - left) * (high - low)
    return area


@given(point_lists)
def test_the_front_is_that_of_all_pairwise_comparisons(points):
    kl, reward = zip(*points, strict=True)

    assert non_dominated(kl, reward).tolist() == brute_force_front(points)


@given(point_lists, st.floats(0.5, 40), st.floats(-12, 5))
def test_the_hypervolume_is_that_of_counting_cells(points, max_kl, reference):
    kl, reward = zip(*points, strict=True)

    area = hypervolume(kl, reward, max_kl=max_kl, reference_reward=reference)

    assert float(area) == pytest.approx(brute_force_hypervolume(points, max_kl, reference), rel=1e-9, abs=1e-9)


@given(point_lists, point_lists, st.floats(0, 40))
def test_replicates_stacked_on_leading_axes_give_what_each_gives_alone(first, second, at):
    size = min(len(first), len(second))
    stacked = np.array([first[:size], second[:size]])
    kl, reward = stacked[..., 0], stacked[..., 1]

    together = (
        non_dominated(kl, reward).tolist(),
        hypervolume(kl, reward, max_kl=30.0, reference_reward=reward[:, 0]),
        reward_at_kl(kl, reward, at),
    )

    assert together[0] == [non_dominated(*pair).tolist() for pair in zip(kl, reward, strict=True)]
    alone = [hypervolume(k, r, max_kl=30.0, reference_reward=r[0]) for k, r in zip(kl, reward, strict=True)]
    np.testing.assert_array_equal(together[1], alone)
    np.testing.assert_array_equal(together[2], [reward_at_kl(*pair, at) for pair in zip(kl, reward, strict=True)])


@given(point_lists, st.floats(0, 50))
def test_reward_at_kl_is_numpys_interpolation_along_the_front(points, at):
    front = sorted({point for point, kept in zip(points, brute_force_front(points), strict=True) if kept})
    front.append((max(kl for kl, _ in points), front[-1][1]))  # level to the highest KL that was evaluated
    kl, reward = map(np.array, zip(*front, strict=True))
    expected = np.interp(math.sqrt(at), np.sqrt(kl), reward, left=np.nan, right=np.nan)
    if kl[0] <= at <= kl[-1]:  # sqrt rounds at the very ends
        expected = np.interp(math.sqrt(at), np.sqrt(kl), reward)

    found = reward_at_kl(*zip(*points, strict=True), at)

    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_a_better_point_at_equal_kl_dominates_and_an_equal_point_does_not():
    kl, reward = [1.0, 1.0, 2.0, 2.0, 3.0], [0.5, 0.4, 0.9, 0.9, 0.9]

    assert non_dominated(kl, reward).tolist() == [True, False, True, True, False]


def test_the_hypervolume_of_two_steps_is_the_sum_of_their_rectangles():
    # Above 0.2: from KL 1 to 4 the height is 0.3, from 4 to 10 it is 0.8.
    area = hypervolume([1.0, 4.0], [0.5, 1.0], max_kl=10.0, reference_reward=0.2)

    assert float(area) == pytest.approx(3 * 0.3 + 6 * 0.8, abs=1e-12)


def test_reward_is_linear_in_the_root_of_kl_between_points():
    # Roots of 1, 4 and 16 are 1, 2 and 4. At KL 9 the root is 3: half way from 2 to 4.
    kl, reward = [1.0, 4.0, 16.0], [0.0, 1.0, 2.0]

    assert float(reward_at_kl(kl, reward, 9.0)) == pytest.approx(1.5, abs=1e-12)
    assert float(reward_at_kl(kl, reward, 2.25)) == pytest.approx(0.5, abs=1e-12)
    assert float(reward_at_kl(kl, reward, 4.0)) == 1.0


def test_a_dominated_point_does_not_bend_the_front():
    assert float(reward_at_kl([1.0, 9.0, 4.0], [0.0, 2.0, -5.0], 4.0)) == pytest.approx(1.0, abs=1e-12)


def test_where_more_kl_buys_nothing_the_front_stays_level_to_the_last_point():
    kl, reward = [1.0, 4.0, 16.0], [0.0, 1.0, 0.3]

    assert float(reward_at_kl(kl, reward, 9.0)) == 1.0
    assert float(reward_at_kl(kl, reward, 16.0)) == 1.0
    assert math.isnan(reward_at_kl(kl, reward, 16.1))


@pytest.mark.parametrize("at", [0.5, 16.5])
def test_a_kl_beyond_the_front_has_no_reward(at):
    assert math.isnan(reward_at_kl([1.0, 16.0], [0.0, 2.0], at))


@pytest.mark.parametrize(("kl", "reward"), [([1.0], [math.nan]), ([math.inf], [1.0]), ([], []), ([1.0, 2.0], [1.0])])
def test_points_that_are_no_points_are_refused(kl, reward):
    with pytest.raises(ValueError, match="KL and reward"):
        non_dominated(kl, reward)


@given(point_lists, st.floats(0.5, 40), st.floats(-12, 5))
def test_front_and_hypervolume_are_those_of_moocore(points, max_kl, reference):
    """Both of its objectives are minimised: the reward enters with its sign turned."""
    kl, reward = (np.array(values) for values in zip(*points, strict=True))
    objectives = np.column_stack([kl, -reward])

    assert non_dominated(kl, reward).tolist() == moocore.is_nondominated(objectives, keep_weakly=True).tolist()
    assert float(hypervolume(kl, reward, max_kl=max_kl, reference_reward=reference)) == pytest.approx(
        moocore.hypervolume(objectives, ref=[max_kl, -reference]), rel=1e-9, abs=1e-9
    )


@given(point_lists, st.floats(0, 20), st.floats(0.5, 30))
def test_the_area_is_that_of_reading_the_curve_off_at_many_kls(points, low, width):
    kl, reward = (np.array(values) for values in zip(*points, strict=True))
    # the curve where it has no number: level before its first point and beyond its last
    order = np.lexsort((-reward, kl))
    first, last = reward[order][0], reward.max()
    at = low + width * np.arange(201) / 200
    curve = [float(reward_at_kl(kl, reward, each)) for each in at]
    filled = [
        last if each > kl.max() else first if math.isnan(value) else value
        for each, value in zip(at, curve, strict=True)
    ]

    area = float(area_between(kl, reward, low=low, high=low + width))

    # a curve that only rises lies between its values at both ends of each strip
    rounding = 1e-9 * width * (1 + max(map(abs, filled)))
    assert sum(filled[:-1]) * width / 200 - rounding <= area <= sum(filled[1:]) * width / 200 + rounding


def test_the_area_of_a_line_in_the_root_of_kl():
    """reward = sqrt(KL) from 0 to 9: its integral is 2/3 9^(3/2) = 18; from 1 to 4 it is 14/3."""
    kl, reward = [9.0, 0.0, 4.0, 2.0], [3.0, 0.0, 2.0, -5.0]

    assert float(area_between(kl, reward, low=0.0, high=9.0)) == pytest.approx(18.0)
    assert float(area_between(kl, reward, low=1.0, high=4.0)) == pytest.approx(14 / 3)
    assert float(area_between(kl, reward, low=9.0, high=11.0)) == pytest.approx(6.0)
    assert area_between([kl, kl], [reward, reward], low=0.0, high=9.0).tolist() == pytest.approx([18.0, 18.0])
    with pytest.raises(ValueError, match="0 <= low < high"):
        area_between(kl, reward, low=2.0, high=2.0)
