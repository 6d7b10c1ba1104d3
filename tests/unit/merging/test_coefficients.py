"""The factor of each input, from inner products of init and task vectors: against the vectors themselves, in float64."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import numpy as np
import pytest

from warpctl.errors import NumericsError
from warpctl.merging.coefficients import SMALLEST_NORM, coefficients_of, factors_of_policies, from_zero
from warpctl.merging.diagnostics import GroupDiagnostics
from warpctl.merging.groups import Group
from warpctl.merging.slerp import slerp
from warpctl.merging.task_vector import inner_products, task_gram
from warpctl.spec.merge_method import Granularity, MergeMethod, SlerpOf, SlerpOrder

GROUP = Group("w", ("w",))


def rows(*vectors: list[float]) -> np.ndarray:
    return np.array(vectors, np.float64)


def method(**changes: object) -> MergeMethod:
    return MergeMethod(granularity=Granularity.TENSOR, liti_rate=Decimal(1), **changes)  # type: ignore[arg-type]


def of_weights(slerp_weight: float) -> MergeMethod:
    return method(slerp_of=SlerpOf.WEIGHTS, slerp_weights={"w": slerp_weight})


def formula(one: np.ndarray, two: np.ndarray, slerp_weight: float) -> np.ndarray:
    """SLERP as it is in the books; the angle by atan2 of the unit vectors."""
    a, b = one / np.linalg.norm(one), two / np.linalg.norm(two)
    omega = 2 * math.atan2(np.linalg.norm(a - b), np.linalg.norm(a + b))
    return (math.sin((1 - slerp_weight) * omega) * one + math.sin(slerp_weight * omega) * two) / math.sin(omega)


def test_a_merge_of_policies_has_the_factors_that_it_had() -> None:
    weights_KN = np.random.default_rng(0).standard_normal((4, 30))
    products = inner_products(weights_KN)
    for order in SlerpOrder:
        found = coefficients_of(GROUP, products, MergeMethod(order=order, liti_rate=Decimal("0.3")))
        weights = slerp(task_gram(products), order).weights
        assert found.factors_K.tolist() == [1.0 - math.fsum(weights), *weights]
        assert (found.diagnostics.weights, found.diagnostics.slerp_weight) == (tuple(weights), None)
        assert "slerpWeight" not in found.diagnostics.to_json()


@pytest.mark.parametrize("slerp_weight", [0.0, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_slerp_of_two_task_vectors_is_the_formula(seed: int, slerp_weight: float) -> None:
    init, one, two = weights_KN = np.random.default_rng(seed).standard_normal((3, 40))
    found = coefficients_of(GROUP, inner_products(weights_KN), method(slerp_weights={"w": slerp_weight}))
    expected = init + formula(one - init, two - init, slerp_weight)
    np.testing.assert_allclose(found.factors_K @ weights_KN, expected, rtol=1e-11, atol=1e-11)
    assert found.diagnostics.slerp_weight == slerp_weight


@pytest.mark.parametrize("slerp_weight", [0.0, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("closeness", [1e-4, 0.01, 1.0, 100.0])
def test_slerp_of_weights_is_the_formula(closeness: float, slerp_weight: float) -> None:
    rng = np.random.default_rng(7)
    one = rng.standard_normal(40)
    two = one + closeness * rng.standard_normal(40)
    found = coefficients_of(GROUP, inner_products(rows(one, two)), of_weights(slerp_weight))
    expected = formula(one, two, slerp_weight)
    np.testing.assert_allclose(found.factors_K @ rows(one, two), expected, rtol=1e-11, atol=1e-11 * closeness)
    seen = found.diagnostics
    np.testing.assert_allclose(seen.norms, np.linalg.norm(rows(one, two), axis=1), rtol=1e-13)
    assert seen.merged_norm == pytest.approx(np.linalg.norm(expected), rel=1e-12)
    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    assert seen.cosines[0][1] == seen.weight_cosines[1][0] == pytest.approx(cosine, rel=1e-12)
    assert seen.angles == pytest.approx([math.degrees(math.acos(cosine))], rel=1e-6)


@pytest.mark.parametrize("slerp_weight", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(
    ("one", "two", "kind"),
    [
        ([3.0, 4.0], [6.0, 8.0], "Parallel"),
        ([3.0, 4.0], [3.0, 4.0], "Parallel"),
        ([3.0, 4.0], [-6.0, -8.0], "Antiparallel"),
        ([0.0, 0.0], [3.0, 4.0], "Zero"),
        ([3.0, 4.0], [0.0, 0.0], "Zero"),
        ([0.0, 0.0], [0.0, 0.0], "Zero"),
        ([3.0, 4.0], [-4e-6, 3e-6], "Zero"),
        ([3.0, 4.0], [3e-6, 4e-6], "Zero"),
    ],
)
def test_weights_without_an_angle_are_averaged_and_it_says_so(
    one: list[float], two: list[float], kind: str, slerp_weight: float
) -> None:
    found = coefficients_of(GROUP, inner_products(rows(one, two)), of_weights(slerp_weight))
    np.testing.assert_allclose(found.factors_K, [1 - slerp_weight, slerp_weight], rtol=1e-12, atol=1e-15)
    assert found.diagnostics.degenerate == (kind,)
    cosines = {"Parallel": 1.0, "Antiparallel": -1.0, "Zero": None}
    assert found.diagnostics.cosines[0][1] == found.diagnostics.cosines[1][0] == cosines[kind]


@pytest.mark.parametrize("one", [[1.0, 2.0], [0.0, 0.0]])
def test_the_ends_are_the_models_themselves(one: list[float]) -> None:
    products = inner_products(rows(one, [2.0, -3.0]))
    assert [coefficients_of(GROUP, products, of_weights(end)).factors_K.tolist() for end in (0.0, 1.0)] == [
        [1.0, 0.0],
        [0.0, 1.0],
    ]


@pytest.mark.parametrize("ratio", [1.1 * SMALLEST_NORM, 1e-3, 1e3, 1e8])
def test_norms_may_be_far_apart(ratio: float) -> None:
    rng = np.random.default_rng(3)
    one = rng.standard_normal(50)
    two = ratio * rng.standard_normal(50)
    found = coefficients_of(GROUP, inner_products(rows(one, two)), of_weights(0.3))
    assert found.diagnostics.degenerate == ()
    expected = formula(one, two, 0.3)
    assert np.linalg.norm(found.factors_K @ rows(one, two) - expected) < 1e-5 * np.linalg.norm(expected)


def test_inner_products_from_zero_are_those_of_the_weights() -> None:
    weights_KN = np.random.default_rng(1).standard_normal((3, 20))
    found = from_zero(inner_products(weights_KN))
    assert not found[0].any()
    assert not found[:, 0].any()
    np.testing.assert_allclose(found[1:, 1:], weights_KN @ weights_KN.T, rtol=1e-12, atol=1e-12)


def test_the_init_has_what_is_left_of_one() -> None:
    assert factors_of_policies([0.25, 0.5]).tolist() == [0.25, 0.25, 0.5]


@pytest.mark.parametrize("is_of_weights", [False, True])
def test_what_is_not_finite_is_refused(is_of_weights: bool) -> None:
    weights_KN = rows([1.0, 2.0], [np.inf, 1.0], [1.0, 1.0])[: 2 if is_of_weights else 3]
    with pytest.raises(NumericsError, match="not finite"):
        coefficients_of(
            GROUP,
            inner_products(weights_KN),
            of_weights(0.5) if is_of_weights else method(slerp_weights={"w": 0.5}),
        )


@pytest.mark.parametrize("how", [method(), method(slerp_weights={"w": 0.25})], ids=["plain", "recipe"])
def test_diagnostics_come_back_from_json_as_they_were(how: MergeMethod) -> None:
    weights_KN = np.random.default_rng(0).standard_normal((3, 30))
    seen = coefficients_of(GROUP, inner_products(weights_KN), how).diagnostics
    assert GroupDiagnostics.from_json(json.loads(json.dumps(seen.to_json()))) == seen
