"""mergekit's recipes: the options that one stands for, and why another is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.builders.checkpoints import model_files, moved, random_weights, rounded
from tests.builders.model_folder import write_folder
from tests.unit.cli.conftest import Place
from warpctl.cli.merge_recipe import Recipe, read_recipe
from warpctl.errors import UserError
from warpctl.merging.slerp_weights import SlerpRule
from warpctl.spec.merge_method import SlerpOf
from warpctl.storage.plain_folder import PlainFolder
from warpctl.storage.tensors import Checkpoint

NUSLERP: dict[str, Any] = {
    "merge_method": "nuslerp",
    "base_model": "init",
    "models": [{"model": "one", "parameters": {"weight": 0.5}}, {"model": "two", "parameters": {"weight": 0.5}}],
    "dtype": "float32",
}
LINEAR: dict[str, Any] = {
    "merge_method": "linear",
    "models": [{"model": "one", "parameters": {"weight": 3}}, {"model": "two", "parameters": {"weight": 1}}],
    "dtype": "bfloat16",
}

SLERP: dict[str, Any] = {
    "merge_method": "slerp",
    "base_model": "one",
    "models": [{"model": "one"}, {"model": "two"}],
    "parameters": {"t": 0.25},
    "dtype": "bfloat16",
}
MIDDLE = (SlerpRule((0.5,)),)


def written(folder: Path, recipe: object) -> str:
    with (folder / "recipe.yaml").open("w") as file:
        YAML(typ="safe").dump(recipe, file)
    return str(folder / "recipe.yaml")


def changed(recipe: dict[str, Any], **fields: object) -> dict[str, Any]:
    return {name: value for name, value in {**copy.deepcopy(recipe), **fields}.items() if value is not None}


def at(t: object) -> dict[str, Any]:
    return changed(SLERP, parameters={"t": t})


def slice_of(*sources: dict[str, Any], **others: object) -> dict[str, Any]:
    return changed(SLERP, models=None, slices=[{"sources": list(sources), **others}])


def interpolation(*rules: SlerpRule, **others: Any) -> Recipe:
    options = {"slerp_of": SlerpOf.WEIGHTS, **others}
    return Recipe("one", ("two",), "bfloat16", slerp_rules=rules, **options)


def weighing(recipe: dict[str, Any], *weights: object) -> dict[str, Any]:
    names = ("one", "two", "three")
    return changed(recipe, models=[{"model": n, "parameters": {"weight": w}} for n, w in zip(names, weights)])  # noqa: B905


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        (NUSLERP, Recipe("init", ("one", "two"), "float32", slerp_rules=MIDDLE)),
        (changed(NUSLERP, out_dtype="bfloat16"), Recipe("init", ("one", "two"), "bfloat16", slerp_rules=MIDDLE)),
        (
            changed(NUSLERP, models=[{"model": "two"}, {"model": "one"}], parameters={"weight": 1.0}),
            Recipe("init", ("two", "one"), "float32", slerp_rules=MIDDLE),
        ),
        (weighing(NUSLERP, 1, 3), Recipe("init", ("one", "two"), "float32", slerp_rules=(SlerpRule((0.75,)),))),
        (weighing(NUSLERP, 2, 0), Recipe("init", ("one", "two"), "float32", slerp_rules=(SlerpRule((0.0,)),))),
        (weighing(NUSLERP, 0, 2), Recipe("init", ("one", "two"), "float32", slerp_rules=(SlerpRule((1.0,)),))),
        (weighing(NUSLERP, 0, 0), Recipe("init", ("one", "two"), "float32", slerp_rules=MIDDLE)),
        (weighing(NUSLERP, 1e-7, 8e-7), Recipe("init", ("one", "two"), "float32", slerp_rules=MIDDLE)),
        (
            changed(
                NUSLERP,
                models=[{"model": "init"}, *NUSLERP["models"]],
                parameters={"nuslerp_flatten": True, "nuslerp_row_wise": False},
            ),
            Recipe("init", ("one", "two"), "float32", slerp_rules=MIDDLE),
        ),
        (
            changed(weighing(NUSLERP, 0.1, 0.9), base_model=None, dtype="bfloat16"),
            interpolation(SlerpRule((0.9,))),
        ),
        (SLERP, interpolation(SlerpRule((0.25,)))),
        (changed(SLERP, models=[{"model": "two"}]), interpolation(SlerpRule((0.25,)))),
        (changed(SLERP, models=[{"model": "two"}, {"model": "one"}]), interpolation(SlerpRule((0.25,)))),
        (at(1), interpolation(SlerpRule((1.0,)))),
        (at([0, 0.5, 1]), interpolation(SlerpRule((0.0, 0.5, 1.0)))),
        (at({"filter": "*", "value": 0.5}), interpolation(SlerpRule((0.5,)))),
        (
            at([{"filter": "self_attn", "value": [0, 1]}, {"filter": "mlp", "value": 0.3}, {"value": 0.5}]),
            interpolation(SlerpRule((0.0, 1.0), "self_attn"), SlerpRule((0.3,), "mlp"), SlerpRule((0.5,))),
        ),
        (
            slice_of({"model": "one", "layer_range": [0, 32]}, {"model": "two", "layer_range": [0, 32]}),
            interpolation(SlerpRule((0.25,)), num_layers=32),
        ),
        (LINEAR, Recipe("one", ("two",), "bfloat16", (0.25,))),
        (changed(LINEAR, base_model="two", dtype=None), Recipe("two", ("one",), "float32", (0.75,))),
        (weighing(LINEAR, 0.7, 0.3), Recipe("one", ("two",), "bfloat16", (0.3,))),
        (weighing(LINEAR, 1, 0, 3), Recipe("one", ("two", "three"), "bfloat16", (0.0, 0.75))),
        (
            changed(weighing(LINEAR, 2, 1, 1), base_model="three"),
            Recipe("three", ("one", "two"), "bfloat16", (0.5, 0.25)),
        ),
    ],
)
def test_a_recipe_stands_for_options(tmp_path: Path, recipe: dict[str, Any], options: Recipe) -> None:
    assert read_recipe(written(tmp_path, recipe)) == options


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (changed(SLERP, base_model=None), "base_model is missing: slerp goes from it"),
        (changed(SLERP, parameters=None), "parameters.t is missing: 0 is base_model"),
        (changed(SLERP, base_model="init"), "slerp takes one model beside base_model, not 2"),
        (changed(SLERP, models=[{"model": "one"}]), "slerp takes one model beside base_model, not 0"),
        (
            changed(SLERP, models=[{"model": "one"}, {"model": "two", "parameters": {"t": 0.5}}]),
            "models[1].parameters: a model of slerp has none; t is in those of the recipe",
        ),
        (changed(SLERP, parameters={"t": 0.5, "weight": 1}), "parameters.weight: 1 is not done here"),
        (at(1.25), "parameters.t: 1.25 is not a number from 0"),
        (at(-0.1), "parameters.t: -0.1 is not a number from 0"),
        (at(True), "parameters.t: True is not a number from 0"),
        (at("half"), "parameters.t: half is not a number from 0"),
        (at(float("nan")), "parameters.t: nan is not a number from 0"),
        (at([]), "parameters.t: the list is empty"),
        (at([0.5, 2]), "parameters.t: 2 is not a number from 0"),
        (at([{"filter": "mlp", "value": 0.5}, 0.5]), "parameters.t[1]: must be a filter"),
        (at([{"filter": "mlp", "values": 0.5}]), "parameters.t[0]: must be a filter"),
        (at([{"filter": 3, "value": 0.5}]), "parameters.t[0].filter: must be a part of the names"),
        (at([{"filter": "mlp"}]), "parameters.t[0].value: None is not a number from 0"),
        (
            slice_of({"model": "one", "layer_range": [0, 32]}, {"model": "two", "layer_range": [0, 24]}),
            "slices[0].sources: layer_range must be [0, layers of the model]",
        ),
        (slice_of({"model": "one", "layer_range": [2, 32]}), "slices[0].sources: layer_range must be"),
        (slice_of({"model": "one"}), "slices[0].sources: layer_range must be"),
        (slice_of({"model": "one", "layer_range": [0, 2]}, base_model="x"), "slices[0]: base_model is not known here"),
        (changed(SLERP, slices=[{"sources": []}]), "slices: layers of several models"),
        (changed(SLERP, models=None, slices=[{}, {}]), "slices: layers of several models"),
        (changed(SLERP, models=None, slices=[{"sources": []}]), "slices[0].sources: must be a list of models"),
        (changed(NUSLERP, merge_method="ties"), "merge_method: ties is not slerp, nuslerp or linear"),
        (weighing(changed(NUSLERP, base_model=None), 1), "nuslerp takes two models, not 1"),
        (weighing(NUSLERP, -1, 2), "weights must not be negative; SLERP here is between the two models"),
        (weighing(NUSLERP, 1, 1, 1), "takes two models beside the base, not 3"),
        (changed(NUSLERP, parameters={"nuslerp_row_wise": True}), "parameters.nuslerp_row_wise: True is not done here"),
        (changed(NUSLERP, parameters={"t": 0.5}), "parameters.t: 0.5 is not done here"),
        (weighing(NUSLERP, [0.1, 0.9], 0.5), "models[0].parameters.weight: gradients and filters"),
        (weighing(NUSLERP, "much", 0.5), "models[0].parameters.weight: must be a number"),
        (changed(NUSLERP, parameters={"nuslerp_flatten": False}), "parameters.nuslerp_flatten: False is not done here"),
        (changed(NUSLERP, slices=[]), "slices: layers of several models"),
        (changed(NUSLERP, tokenizer={"source": "union"}), "tokenizer: tokenizers are copied"),
        (changed(NUSLERP, tokenizer_source="union"), "tokenizer_source: the tokenizer is copied"),
        (changed(NUSLERP, dtype="float16"), "dtype: float16 is not float32 or bfloat16"),
        (changed(NUSLERP, base_model={"model": "x"}), "base_model: must be a path or URI"),
        (changed(NUSLERP, models="one"), "models: must be a list"),
        (weighing(LINEAR, 1), "linear takes two models or more, not 1"),
        (weighing(LINEAR, -1, 2), "weights must not be negative, and not all zero"),
        (weighing(LINEAR, 0, 0, 0), "weights must not be negative, and not all zero"),
        (weighing(LINEAR, float("inf"), 1), "models[0].parameters.weight: must be a number"),
        (weighing(LINEAR, 1, [0.5, 1]), "models[1].parameters.weight: gradients and filters"),
        (changed(LINEAR, base_model="init"), "base_model: must be one of the models"),
        (changed(LINEAR, parameters={"normalize": False}), "parameters.normalize: False is not done here; True is"),
        (["merge"], "the recipe: must be a mapping"),
    ],
)
def test_what_is_not_the_same_here_is_refused(tmp_path: Path, recipe: object, why: str) -> None:
    with pytest.raises(UserError) as refused:
        read_recipe(written(tmp_path, recipe))

    assert why in refused.value.message
    assert refused.value.hint


def test_linear_is_the_weighted_average(place: Place, warpctl) -> None:
    one = random_weights(0)
    two = moved(one, 1, scale=0.5)
    for name, weights in (("one", one), ("two", two)):
        write_folder(place.folder / name, model_files(weights))

    said = warpctl(place, "merge", "--recipe", written(place.folder, LINEAR), "--out", "out")

    assert said.code == 0, said.err
    out = Checkpoint.open(PlainFolder.open(str(place.folder / "out")))
    expected = {name: (0.75 * one[name].astype("f8") + 0.25 * two[name]).astype("f4") for name in one}
    for name, values in rounded(expected, "BF16").items():
        assert (out.read(name) == values).all(), name
    record = json.loads((place.folder / "out" / "merge.json").read_text())
    assert (record["linearWeights"], record["holds"]) == ([0.25], "average")
    assert "litiRate" not in record


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--recipe", "recipe.yaml", "--init", "x"), "--init and --recipe exclude each other"),
        (("--recipe", "recipe.yaml", "--liti-rate", "0.3"), "--liti-rate and --recipe exclude each other"),
        (("--recipe", "gone.yaml"), "cannot read gone.yaml: No such file"),
        (("--recipe", "bad.yaml"), "bad.yaml is not YAML"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_one_line(place: Place, warpctl, arguments, words: str) -> None:
    written(place.folder, NUSLERP)
    (place.folder / "bad.yaml").write_text("a: [")

    said = warpctl(place, "merge", *arguments, "--out", "out")

    assert (said.code, said.out, len(said.err.splitlines())) == (2, "", 2)
    assert words in said.err
