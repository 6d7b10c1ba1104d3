"""lambda of each tensor of a recipe: by filter, and along the layers."""

from __future__ import annotations

import pytest

from warpctl.errors import UserError
from warpctl.merging.slerp_weights import SlerpRule, num_layers, slerp_weights

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LAYERS = [f"model.layers.{number}.mlp.up.weight" for number in range(5)]


def test_one_value_is_for_all() -> None:
    assert slerp_weights([SlerpRule((0.3,))], [EMBEDDING, *LAYERS]) == dict.fromkeys([EMBEDDING, *LAYERS], 0.3)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.0, 1.0), [0, 0.25, 0.5, 0.75, 1]),
        ((1.0, 0.0, 0.5), [1, 0.5, 0, 0.25, 0.5]),
        ((0.0, 0.4, 0.1, 0.7, 1.0), [0, 0.4, 0.1, 0.7, 1]),
        ((0.25, 0.25), [0.25] * 5),
    ],
)
def test_values_go_from_the_first_layer_to_the_last(values: tuple[float, ...], expected: list[float]) -> None:
    found = slerp_weights([SlerpRule(values)], [EMBEDDING, *LAYERS, HEAD])
    assert [found[name] for name in LAYERS] == pytest.approx(expected, abs=1e-15)
    assert found[EMBEDDING] == found[HEAD] == values[0]


def test_the_only_layer_is_at_the_end() -> None:
    assert slerp_weights([SlerpRule((0.25, 0.5, 0.75))], LAYERS[:1]) == {LAYERS[0]: 0.75}


def test_numbers_of_layers_are_numbers() -> None:
    names = [f"model.layers.{number}.w.experts.3.weight" for number in (10, 2, 5)]
    assert slerp_weights([SlerpRule((0.0, 1.0))], names) == {names[0]: 1.0, names[1]: 0.2, names[2]: 0.5}
    assert num_layers(names) == 11


def test_the_first_rule_that_is_for_a_tensor_counts() -> None:
    rules = [SlerpRule((0.0, 1.0), "mlp"), SlerpRule((0.75,), "layers.2"), SlerpRule((0.5,))]
    found = slerp_weights(rules, [*LAYERS, "model.layers.2.norm.weight", HEAD])
    assert [found[name] for name in LAYERS] == [0, 0.25, 0.5, 0.75, 1]
    assert (found["model.layers.2.norm.weight"], found[HEAD]) == (0.75, 0.5)


def test_a_tensor_without_a_value_is_named() -> None:
    with pytest.raises(UserError, match=r"no value of the recipe's t is for tensor lm_head\.weight"):
        slerp_weights([SlerpRule((0.5,), "mlp")], [*LAYERS, HEAD])


def test_lists_need_one_row_of_layers() -> None:
    both = [*LAYERS, "vision.blocks.0.w.weight"]
    assert slerp_weights([SlerpRule((0.5,))], both)["vision.blocks.0.w.weight"] == 0.5
    with pytest.raises(UserError, match=r"several kinds: model\.layers\.\*, vision\.blocks\.\*"):
        slerp_weights([SlerpRule((0.0, 1.0))], both)


def test_a_model_without_layers_has_the_first_value() -> None:
    assert slerp_weights([SlerpRule((0.25, 1.0))], [HEAD]) == {HEAD: 0.25}
    assert num_layers([HEAD]) == 0
