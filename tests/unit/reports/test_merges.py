"""Diagnostics of merges as the report reads and draws them."""

import pytest

from warpctl.reports.charts import SMALL
from warpctl.reports.figures import merge_figures
from warpctl.reports.merges import MAX_MARKED, cosine_chart, merge_facts, norm_chart


def document(names=("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm"), *, norms=(3.0, 4.0, 5.0)):
    count = len(norms)
    cosines = [[1.0 if a == b else 0.1 * (a + b) for b in range(count)] for a in range(count)]
    weights = [[1.0 if a == b else 1 - 0.001 * (a + b) for b in range(count)] for a in range(count)]
    return {
        "members": [f"member/{m}" for m in range(count)],
        "summary": {"cosine": 0.2} if count > 1 else {},
        "groups": [
            {
                "group": name,
                "norms": list(norms),
                "cosines": cosines,
                "weightCosines": weights,
                "initNorm": 40.0,
                "mergedNorm": 3.8,
                "degenerate": [],
            }
            for name in names
        ],
    }


def test_a_group_has_mean_and_range_over_pairs_and_norms_in_proportion():
    merge = merge_facts(document(), iteration=2)

    group = merge.groups[1]
    assert [group.name for group in merge.groups] == ["embed_tokens", "0", "1", "norm"]
    assert (group.cosine, group.cosine_low, group.cosine_high) == pytest.approx((0.2, 0.1, 0.3))  # pairs 01, 02, 12
    assert group.weight_cosine == pytest.approx(0.997)
    assert (group.moved, group.norm_ratio, group.merged_ratio) == pytest.approx((0.1, 5 / 3, 0.95))


def test_one_member_has_norms_and_no_cosines():
    merge = merge_facts(document(norms=(2.0,)), iteration=1)

    assert [group.cosine for group in merge.groups] == [None] * 4
    assert [
        figure.title for figure in merge_figures([merge], lambda _: "<svg xmlns='http://www.w3.org/2000/svg'/>")
    ] == ["Norm of the task vectors by layer"]


def test_a_zero_task_vector_is_said_and_divides_nothing():
    body = document(norms=(0.0, 0.0))
    for group in body["groups"]:
        group |= {"cosines": [[None, None], [None, None]], "degenerate": ["Zero", "Zero"], "initNorm": 0.0}

    group = merge_facts(body, iteration=1).groups[0]

    assert (group.cosine, group.moved, group.norm_ratio, group.merged_ratio) == (None, None, None, None)
    assert group.degenerate == "Zero"


def test_layers_stand_in_the_order_of_the_model_and_many_have_no_markers():
    few = cosine_chart([merge_facts(document(), iteration=1)], SMALL)
    names = [f"model.layers.{i}" for i in range(MAX_MARKED + 1)]
    many = norm_chart([merge_facts(document(names), iteration=i) for i in (1, 2)], SMALL)

    assert few["layer"][1]["encoding"]["x"]["sort"] == ["embed_tokens", "0", "1", "norm"]
    assert "point" in {layer["mark"]["type"] for layer in few["layer"]}
    assert {layer["mark"]["type"] for layer in many["layer"]} == {"line"}
    assert [row["y"] for row in many["data"]["values"][:2]] == pytest.approx([10.0, 10.0])
