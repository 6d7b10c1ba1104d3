"""The paired bootstrap: coverage at a fixed seed, pairing, and independence of how it is cut into blocks."""

import numpy as np
import pytest

from warpctl.reports import bootstrap
from warpctl.reports.bootstrap import interval, replicate_means


def replicates(values, *, seed=0, count=500):
    return replicate_means(values, generator=np.random.default_rng(seed), num_replicates=count)


def test_intervals_cover_the_true_mean_about_as_often_as_they_say():
    generator = np.random.default_rng(7)
    hits = 0
    for trial in range(300):
        sample = generator.exponential(size=(1, 200))  # skewed, true mean 1
        low, high = interval(replicates(sample, seed=trial, count=400), level=0.9)
        hits += int(low[0] <= 1.0 <= high[0])

    assert 0.85 <= hits / 300 <= 0.94


def test_the_spread_of_replicates_is_the_standard_error_of_the_mean():
    sample = np.random.default_rng(3).normal(size=(1, 400))

    spread = replicates(sample, count=4000).std()

    assert spread == pytest.approx(sample.std() / np.sqrt(400), rel=0.05)


def test_all_quantities_see_the_same_prompts():
    values = np.random.default_rng(1).normal(size=50)

    first, second = replicates(np.stack([values, 3 * values + 2]))

    np.testing.assert_allclose(second, 3 * first + 2, atol=1e-12)


def test_a_constant_has_an_interval_of_no_width():
    low, high = interval(replicates(np.full((1, 9), 2.5)), level=0.95)

    assert (low[0], high[0]) == (2.5, 2.5)


def test_the_same_seed_gives_the_same_replicates_in_blocks_or_at_once(monkeypatch):
    values = np.random.default_rng(2).normal(size=(2, 30))
    at_once = replicates(values, seed=5, count=100)
    monkeypatch.setattr(bootstrap, "_MAX_CELLS", 30 * 7)

    in_blocks = replicates(values, seed=5, count=100)

    np.testing.assert_allclose(in_blocks, at_once, atol=1e-12)
    assert not np.allclose(replicates(values, seed=6, count=100), at_once)


def test_the_interval_cuts_equal_tails():
    low, high = interval(np.arange(101.0), level=0.8)

    assert (float(low), float(high)) == pytest.approx((10.0, 90.0), abs=1e-9)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_outside_of_0_and_1_is_refused(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval(np.arange(3.0), level=level)


def test_no_prompt_is_refused():
    with pytest.raises(ValueError, match="at least one prompt"):
        replicates(np.empty((2, 0)))
