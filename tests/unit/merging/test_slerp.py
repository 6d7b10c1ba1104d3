"""SLERP coefficients against an independent reference on vectors, the paper's numbers, and laws."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from warpctl.errors import NumericsError
from warpctl.merging.slerp import Degenerate, pair_weights, slerp, slerp_between
from warpctl.spec.merge_method import SlerpOrder

PAPER, SYMMETRIC = SlerpOrder.PAPER, SlerpOrder.SYMMETRIC
BOTH = pytest.mark.parametrize("order", [PAPER, SYMMETRIC])


def reference_slerp(u, v, slerp_weight):
    """The paper's formula on the vectors themselves; the angle by atan2, not by the Gram matrix."""
    a, b = u / np.linalg.norm(u), v / np.linalg.norm(v)
    omega = 2 * math.atan2(np.linalg.norm(a - b), np.linalg.norm(a + b))
    return (math.sin((1 - slerp_weight) * omega) * u + math.sin(slerp_weight * omega) * v) / math.sin(omega)


def reference_paper(deltas):
    merged = deltas[0]
    for m, delta in enumerate(deltas[1:], 2):
        merged = reference_slerp(merged, delta, 1 / m)
    return merged


def merged(deltas, order):
    return slerp(deltas @ deltas.T, order).weights @ deltas


def vectors(num_members, size=6):
    """Vectors in general position: no entry so small that angles become degenerate."""
    entries = st.floats(-1, 1).filter(lambda value: abs(value) > 1e-3)
    return hnp.arrays(np.float64, (num_members, size), elements=entries)


def in_general_position(deltas):
    unit = deltas / np.linalg.norm(deltas, axis=1, keepdims=True)
    return (np.abs(unit @ unit.T - np.eye(len(deltas))) < 0.99).all()


@pytest.mark.parametrize(
    ("num_members", "weights"),
    [
        (1, [1.0]),
        (2, [0.70711, 0.70711]),
        (3, [0.61237, 0.61237, 0.5]),
        (4, [0.56576, 0.56576, 0.46194, 0.38268]),
        (5, [0.53807, 0.53807, 0.43933, 0.36395, 0.30902]),
    ],
)
def test_paper_order_weighs_orthonormal_task_vectors_as_in_the_design_document(num_members, weights):
    found = slerp(np.eye(num_members), PAPER)
    np.testing.assert_allclose(found.weights, weights, atol=5e-6)
    assert found.degenerate == ()
    np.testing.assert_allclose(found.angles, [90.0] * (num_members - 1), rtol=1e-15)


@pytest.mark.parametrize("num_members", [1, 2, 3, 5, 8])
def test_symmetric_order_weighs_orthonormal_task_vectors_by_one_over_the_square_root(num_members):
    np.testing.assert_allclose(slerp(np.eye(num_members), SYMMETRIC).weights, num_members**-0.5, rtol=1e-15)


@BOTH
def test_two_vectors_at_sixty_degrees_weigh_sin_30_over_sin_60(order):
    gram = np.array([[1.0, 0.5], [0.5, 1.0]])
    np.testing.assert_allclose(slerp(gram, order).weights, [3**-0.5, 3**-0.5], rtol=1e-15)


@given(vectors(2))
def test_two_vectors_give_the_papers_formula_in_both_orders_whatever_their_norms(deltas):
    assume(in_general_position(deltas))
    expected = reference_slerp(deltas[0], deltas[1], 0.5)
    np.testing.assert_allclose(merged(deltas, PAPER), expected, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(merged(deltas, SYMMETRIC), expected, rtol=1e-11, atol=1e-11)


@given(st.integers(3, 6).flatmap(vectors))
def test_more_vectors_in_paper_order_are_slerps_of_slerps(deltas):
    assume(in_general_position(deltas))
    found = slerp(deltas @ deltas.T, PAPER)
    assume(max(found.angles) < 170)  # an intermediate result may come out antiparallel to the next vector
    np.testing.assert_allclose(found.weights @ deltas, reference_paper(deltas), rtol=1e-9, atol=1e-9)


@given(st.integers(2, 5).flatmap(vectors), st.floats(0.01, 100))
@BOTH
def test_equal_norms_are_kept(order, deltas, norm):
    assume(in_general_position(deltas))
    deltas = norm * deltas / np.linalg.norm(deltas, axis=1, keepdims=True)
    found = slerp(deltas @ deltas.T, order)
    assume(found.degenerate == ())
    assume(order is SYMMETRIC or max(found.angles) < 170)
    assume(order is PAPER or np.linalg.norm(deltas.sum(axis=0)) > 0.1 * norm)
    assert np.linalg.norm(found.weights @ deltas) == pytest.approx(norm, rel=1e-9)


@given(vectors(4))
def test_symmetric_order_does_not_depend_on_the_order(deltas):
    assume(in_general_position(deltas))
    assume(np.linalg.norm(deltas.sum(axis=0)) > 0.1)
    weights = slerp(deltas @ deltas.T, SYMMETRIC).weights
    for order in permutations(range(4)):
        permuted = deltas[list(order)]
        np.testing.assert_allclose(slerp(permuted @ permuted.T, SYMMETRIC).weights, weights[list(order)], rtol=1e-9)


def test_paper_order_does_depend_on_the_order():
    gram = np.array([[1.0, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 4.0]])
    swapped = gram[np.ix_([2, 1, 0], [2, 1, 0])]
    assert abs(slerp(gram, PAPER).weights[2] - slerp(swapped, PAPER).weights[0]) > 0.05


@given(st.integers(1, 5).flatmap(vectors), st.integers(-200, 200))
@BOTH
def test_coefficients_do_not_change_when_all_task_vectors_are_scaled(order, deltas, exponent):
    gram = deltas @ deltas.T
    np.testing.assert_array_equal(slerp(gram * 4.0**exponent, order).weights, slerp(gram, order).weights)


@BOTH
@pytest.mark.parametrize("num_members", [1, 2, 3, 5])
def test_parallel_task_vectors_are_averaged(order, num_members):
    norms = np.arange(1.0, num_members + 1)
    found = slerp(np.outer(norms, norms), order)
    np.testing.assert_allclose(found.weights, 1 / num_members, rtol=1e-12)
    assert found.degenerate == ((Degenerate.PARALLEL,) if num_members > 1 else ())


@pytest.mark.parametrize("angle", [1e-9, 0.99e-6, 1.01e-6, 1e-5, 1e-3])
def test_slerp_passes_into_lerp_without_a_step(angle):
    lerp = np.array([0.7, 0.3])
    np.testing.assert_allclose(pair_weights(angle, 0.3), lerp, rtol=0.16 * angle**2 + 1e-12)


@BOTH
def test_antiparallel_task_vectors_fall_to_lerp_and_say_so(order):
    found = slerp(np.array([[1.0, -2.0], [-2.0, 4.0]]), order)
    assert found.weights.tolist() == [0.5, 0.5]
    assert found.degenerate == (Degenerate.ANTIPARALLEL,)


@BOTH
@pytest.mark.parametrize(("gap", "is_plain"), [(0.9e-6, False), (1.1e-6, True)])
def test_both_orders_draw_the_line_at_antiparallel_in_the_same_place(order, gap, is_plain):
    found = slerp(np.array([[1.0, gap - 1.0], [gap - 1.0, 1.0]]), order)
    assert (found.degenerate == ()) is is_plain
    assert found.weights[0] == pytest.approx((2 * gap) ** -0.5 if is_plain else 0.5, rel=1e-6)


def test_three_directions_that_cancel_fall_to_lerp_in_symmetric_order():
    angles = np.radians([0, 120, 240])
    deltas = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = slerp(deltas @ deltas.T, SYMMETRIC)
    np.testing.assert_allclose(found.weights, 1 / 3, rtol=1e-15)
    assert found.degenerate == (Degenerate.ANTIPARALLEL,)


@BOTH
@pytest.mark.parametrize("zero", [0, 1])
def test_a_zero_task_vector_pulls_two_halfway_to_the_init(order, zero):
    gram = np.zeros((2, 2))
    gram[1 - zero, 1 - zero] = 9.0
    found = slerp(gram, order)
    assert found.weights[1 - zero] == 0.5
    assert found.degenerate == (Degenerate.ZERO,)


@BOTH
@pytest.mark.parametrize("num_members", [1, 2, 4])
def test_when_nothing_moved_coefficients_are_finite(order, num_members):
    found = slerp(np.zeros((num_members, num_members)), order)
    assert np.isfinite(found.weights).all()
    assert found.degenerate == ((Degenerate.ZERO,) if num_members > 1 else ())


def test_symmetric_order_counts_zero_task_vectors_as_a_pull_toward_the_init():
    gram = np.diag([1.0, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(slerp(gram, SYMMETRIC).weights[[0, 2]], 0.5 * 2**-0.5, rtol=1e-15)


@BOTH
@given(norm=st.floats(1e-300, 1e300))
def test_one_task_vector_keeps_coefficient_one_exactly(order, norm):
    assert slerp(np.array([[norm]]), order).weights.tolist() == [1.0]


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gram_matrix_that_is_not_finite_is_refused(order, bad):
    with pytest.raises(NumericsError, match="not finite"):
        slerp(np.array([[1.0, 0.0], [0.0, bad]]), order)


def test_the_angle_of_the_symmetric_order_is_that_to_the_common_direction():
    np.testing.assert_allclose(slerp(np.eye(2), SYMMETRIC).angles, [45.0, 45.0], rtol=1e-14)


@given(vectors(2))
def test_two_vectors_at_the_middle_are_the_papers_to_the_bit(deltas):
    gram = deltas @ deltas.T
    found, expected = slerp_between(gram, 0.5), slerp(gram, PAPER)
    assert found.weights.tolist() == expected.weights.tolist()
    assert (found.angles, found.degenerate) == (expected.angles, expected.degenerate)


@given(vectors(2), st.floats(0, 1))
def test_two_vectors_at_any_point_are_the_formula(deltas, slerp_weight):
    assume(in_general_position(deltas))
    found = slerp_between(deltas @ deltas.T, slerp_weight).weights @ deltas
    np.testing.assert_allclose(found, reference_slerp(deltas[0], deltas[1], slerp_weight), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("slerp_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("gram", "kind"),
    [
        ([[1.0, 2.0], [2.0, 4.0]], Degenerate.PARALLEL),
        ([[1.0, -2.0], [-2.0, 4.0]], Degenerate.ANTIPARALLEL),
        ([[0.0, 0.0], [0.0, 4.0]], Degenerate.ZERO),
        ([[4.0, 0.0], [0.0, 0.0]], Degenerate.ZERO),
    ],
)
def test_two_vectors_without_an_angle_are_interpolated_linearly(gram, kind, slerp_weight):
    found = slerp_between(np.array(gram), slerp_weight)
    assert found.weights.tolist() == [1 - slerp_weight, slerp_weight]
    assert found.degenerate == (kind,)
