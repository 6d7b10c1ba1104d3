"""Inner products are exact enough that blocks, order and scale do not matter."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from warpctl.merging.task_vector import (
    BLOCK_ELEMENTS,
    LANES,
    add_up,
    blocks,
    cosines,
    inner_products,
    task_gram,
    weight_gram,
)


def test_products_of_small_integers_are_exact():
    weights = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 3.0], [1.0, 0.0, 5.0]])
    assert inner_products(weights).tolist() == [[14.0, 1.0, 2.0], [1.0, 1.0, 0.0], [2.0, 0.0, 8.0]]


def test_lanes_take_elements_in_turn_and_are_then_halved():
    """Two large terms of opposite sign swallow the ones that share their lanes, 4 and 3 of them, then each other."""
    init = np.ones(3 * LANES + 2)
    init[[0, LANES // 2]] = 2.0**27
    task_vector = np.ones(3 * LANES + 2)
    task_vector[[0, LANES // 2]] = 2.0**27, -(2.0**27)
    assert inner_products(np.array([init, init + task_vector]))[0, 1] == 3 * LANES + 2 - 4 - 3


def test_task_vectors_are_found_where_float32_would_lose_them():
    init = np.full(1000, 1.0, np.float32)
    member = np.nextafter(init, np.float32(2))
    inner = inner_products(np.array([init, member], np.float64))
    assert task_gram(inner)[0, 0] == pytest.approx(1000 * 2.0**-46, rel=1e-15)


def test_the_gram_matrix_of_full_weights_follows_from_that_of_init_and_task_vectors():
    weights = np.random.default_rng(0).standard_normal((4, 500))
    expected = weights[1:] @ weights[1:].T
    np.testing.assert_allclose(weight_gram(inner_products(weights.copy())), expected, rtol=1e-13, atol=1e-12)


def test_the_sum_over_blocks_is_correctly_rounded_and_independent_of_their_order():
    parts = np.array([1e16, 1.0, -1e16, 1e-3, 2.0**-60]).reshape(5, 1, 1)
    exact = float(sum(Fraction(float(part)) for part in parts.ravel()))
    assert add_up(parts)[0, 0] == exact
    assert add_up(parts[::-1])[0, 0] == exact


@pytest.mark.parametrize("num_elements", [0, 1, BLOCK_ELEMENTS, BLOCK_ELEMENTS + 1, 3 * BLOCK_ELEMENTS - 1])
def test_blocks_cover_a_tensor_once(num_elements):
    covered = [index for block in blocks(num_elements) for index in (block.start, block.stop)]
    assert covered[0] == 0
    assert covered[-1] == num_elements
    assert covered[1:-1:2] == covered[2::2]


def test_cosines_are_one_on_the_diagonal_within_bounds_and_undefined_for_a_zero_vector():
    vectors = np.array([[3.0, 4.0], [3e-200, 4e-200], [0.0, 0.0], [-4.0, 3.0]])
    found = cosines(vectors @ vectors.T)
    assert found[0, 0] == 1.0
    assert found[0, 3] == 0.0
    assert np.isnan(found[2]).all()
    assert np.nanmax(np.abs(found)) <= 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_value_that_is_not_finite_shows_in_the_products_without_a_warning(bad, row):
    weights = np.ones((3, 4))
    weights[row, 2] = bad
    assert not np.isfinite(inner_products(weights)).all()


def test_the_largest_float32_numbers_have_finite_products():
    weights = np.array([[-3.4e38] * 8, [3.4e38] * 8])
    assert np.isfinite(inner_products(weights)).all()
