"""Tensors fall into the groups that the documentation promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpctl.merging.groups import layer_of, split_into_groups
from warpctl.spec.merge_method import Granularity


@pytest.mark.parametrize(
    ("tensor", "group"),
    [
        ("model.layers.7.self_attn.q_proj.weight", "model.layers.7"),
        ("model.layers.17.mlp.experts.3.w1.weight", "model.layers.17"),
        ("transformer.h.0.ln_1.bias", "transformer.h.0"),
        ("gpt_neox.layers.11.attention.dense.bias", "gpt_neox.layers.11"),
        ("encoder.block.2.layer.1.DenseReluDense.wi.weight", "encoder.block.2"),
        ("model.embed_tokens.weight", "model.embed_tokens"),
        ("model.norm.weight", "model.norm"),
        ("lm_head.weight", "lm_head"),
        ("lm_head.bias", "lm_head"),
        ("score.weight", "score"),
        ("model.layers2.weight", "model.layers2"),
        ("layers.3.norm.weight", "layers.3"),
        ("0.weight", "0"),
        ("cls_token", "cls_token"),
    ],
)
def test_the_group_of_a_tensor_is_its_layer_or_else_its_module(tensor, group):
    assert layer_of(tensor) == group


def test_embeddings_norm_and_head_are_groups_of_their_own_beside_the_layers():
    names = ["lm_head.weight", "model.norm.weight", "model.embed_tokens.weight"]
    names += [f"model.layers.{layer}.{part}" for layer in (10, 2, 1) for part in ("b.weight", "a.weight")]
    groups = split_into_groups(names, Granularity.LAYER)
    assert [group.name for group in groups] == [
        "lm_head", "model.embed_tokens", "model.layers.1", "model.layers.10", "model.layers.2", "model.norm",
    ]  # fmt: skip
    assert groups[3].tensors == ("model.layers.10.a.weight", "model.layers.10.b.weight")


def test_tensor_granularity_gives_each_tensor_its_own_group_and_global_gives_one():
    names = ["b", "a.1.weight", "a.1.bias"]
    assert [group.tensors for group in split_into_groups(names, Granularity.TENSOR)] == [
        ("a.1.bias",), ("a.1.weight",), ("b",),
    ]  # fmt: skip
    assert [group.tensors for group in split_into_groups(names, Granularity.GLOBAL)] == [
        ("a.1.bias", "a.1.weight", "b")
    ]


def test_a_module_with_a_submodule_between_its_tensors_is_split_with_distinct_names():
    groups = split_into_groups(["m.bias", "m.c.weight", "m.weight"], Granularity.LAYER)
    assert [(group.name, group.tensors) for group in groups] == [
        ("m", ("m.bias",)), ("m.c", ("m.c.weight",)), ("m.weight", ("m.weight",)),
    ]  # fmt: skip


part = st.sampled_from(["model", "layers", "0", "1", "10", "h", "weight", "bias", "norm", "a-b", "x"])


@given(st.sets(st.lists(part, min_size=1, max_size=5).map(".".join), min_size=1), st.sampled_from(list(Granularity)))
def test_every_tensor_is_in_exactly_one_group_in_sorted_order_whatever_the_names(names, granularity):
    groups = split_into_groups(names, granularity)
    assert [name for group in groups for name in group.tensors] == sorted(names)
    assert len({group.name for group in groups}) == len(groups)
