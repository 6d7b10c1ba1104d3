"""Stored points: round trip, canonical bytes, refusal of what is not a point."""

import dataclasses
import json

import numpy as np
import pytest

from warpctl.errors import InputError
from warpctl.reports.evaluation import EvaluatedPoint, point_key, read_names, write_names


def test_a_stored_point_comes_back_as_it_was(evaluated_point):
    point = evaluated_point(completion="<script> \u0645\u0631\u062d\u0628\u0627 \ud800", num_generations=2)

    again = EvaluatedPoint.from_bytes(point.to_bytes())

    assert again == point
    assert again.to_bytes() == point.to_bytes()
    assert again.key == point.key


def test_per_prompt_is_the_mean_over_a_prompts_completions(evaluated_point):
    point = evaluated_point(num_prompts=2, num_generations=2)

    assert point.per_prompt((1.0, 3.0, 10.0, 20.0)).tolist() == [2.0, 15.0]


def test_names_come_back_as_they_were(evaluated_run):
    names = tuple(named for named, _ in evaluated_run(controls=("NoAnchor",)))

    assert read_names(write_names(names)) == names


def test_the_key_does_not_depend_on_the_order_of_settings_but_on_each_of_them():
    assert point_key({"a": 1, "b": 2}) == point_key({"b": 2, "a": 1})
    assert point_key({"a": 1, "b": 2}) != point_key({"a": 1, "b": 3})


def test_a_column_of_another_length_is_refused_by_name(evaluated_point):
    with pytest.raises(InputError, match=r"klRb has 3 entries for 64 completions"):
        dataclasses.replace(evaluated_point(), kl_rb=(0.0, 0.0, 0.0))


@pytest.mark.parametrize("change", [{"klK1": None}, {"prompts": 3}, {"reward": ["much"]}, {"scores": []}])
def test_a_document_that_is_no_point_is_refused(evaluated_point, change):
    document = json.loads(evaluated_point().to_bytes()) | change

    with pytest.raises(InputError, match="cannot be read"):
        EvaluatedPoint.from_bytes(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"{", b"[{}]", b'[{"name":"sft","pointKey":"a","iteration":1}]', b"\xff"])
def test_a_points_file_that_is_none_is_refused(data):
    with pytest.raises(InputError, match=r"points\.json cannot be read"):
        read_names(data)


def test_nan_is_never_stored(evaluated_point):
    point = dataclasses.replace(evaluated_point(num_prompts=1), reward=(float(np.nan),))

    with pytest.raises(ValueError, match="not JSON compliant"):
        point.to_bytes()
