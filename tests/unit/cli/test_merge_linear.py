"""`linear` of several models: the weighted average in float64, rounded once, whatever is stored and however it is read."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tests.builders.checkpoints import SHAPES, model_files, moved, random_weights, rounded
from tests.builders.model_folder import write_folder
from tests.unit.cli.conftest import Place
from warpctl.storage.plain_folder import PlainFolder
from warpctl.storage.tensors import Checkpoint
from warpctl.workers import merge_reading

ONE = random_weights(0)
MODELS = {"one": ONE, "two": moved(ONE, 1), "three": moved(ONE, 2), "four": moved(ONE, 3)}
NAMES = sorted(SHAPES)


def write_models(place: Place, dtypes: dict[str, str] | None = None) -> None:
    for name, weights in MODELS.items():
        write_folder(place.folder / name, model_files(weights, dtype=(dtypes or {}).get(name, "F32")))


def write_recipe(place: Place, weights: dict[str, float], dtype: str = "float32") -> None:
    models = [{"model": name, "parameters": {"weight": weight}} for name, weight in weights.items()]
    recipe = {"merge_method": "linear", "models": models, "dtype": dtype}
    (place.folder / "recipe.yaml").write_text(json.dumps(recipe))


def average(weights: dict[str, float], dtypes: dict[str, str]) -> dict[str, np.ndarray]:
    """Independent of the kernels: (1 - sum of the others' weights) first + ..., in float64."""
    total = math.fsum(weights.values())
    stored = {name: rounded(MODELS[name], dtypes[name]) for name in weights}
    first, *others = weights
    rest = 1 - math.fsum(weights[name] / total for name in others)
    return {
        tensor: sum(
            (weights[name] / total * stored[name][tensor].astype(np.float64) for name in others),
            start=rest * stored[first][tensor].astype(np.float64),
        )
        for tensor in NAMES
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("is_in_parts", [False, True])
@pytest.mark.parametrize(
    "weights",
    [
        {"one": 3, "two": 1},
        {"one": 1, "two": 1, "three": 1},
        {"one": 0.5, "two": 0, "three": 2.5, "four": 0.125},
    ],
    ids=str,
)
def test_the_average_is_that_of_numpy_rounded_once(
    place: Place, warpctl, monkeypatch, dtype: str, is_in_parts: bool, weights: dict[str, float]
) -> None:
    if is_in_parts:
        monkeypatch.setattr("warpctl.workers.merge_linear.weights_bytes", lambda *_: 1)
        monkeypatch.setattr(merge_reading, "weights_bytes", lambda *_: 1)
    dtypes = {"one": "BF16", "two": "F32", "three": "F16", "four": "BF16"}
    write_models(place, dtypes)
    write_recipe(place, weights, dtype)

    said = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out", "--max-shard-size", "300B")

    assert said.code == 0, said.err
    out = Checkpoint.open(PlainFolder.open(str(place.folder / "out")))
    exact = average(weights, dtypes)
    for name in NAMES:
        step = np.spacing(np.abs(exact[name]).astype(np.float32)) * (65536 if dtype == "bfloat16" else 1)
        error = np.abs(out.read(name) - exact[name])
        assert (error <= step * (0.5 + 1e-6)).all(), name


def test_it_says_what_it_averages_and_reads_everything_once(place: Place, warpctl) -> None:
    write_models(place)
    write_recipe(place, {"one": 2, "two": 1, "three": 1})

    dry = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out", "--dry-run", "-o", "json")
    done = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out")

    num_bytes = sum(4 * 3 * math.prod(shape) for shape in SHAPES.values())
    assert json.loads(dry.out)["plan"]["bytesToRead"] == num_bytes
    assert done.code == 0, done.err
    assert "model 1  one  (weight 0.5)" in done.err
    assert "model 3  three  (weight 0.25)" in done.err
    assert "slerp" not in done.err + done.out
    assert done.out.startswith("averaged 3 models in ")
    record = json.loads((place.folder / "out" / "merge.json").read_text())
    assert (record["linearWeights"], record["policies"], record["isComplete"]) == ([0.25, 0.25], ["two", "three"], True)


def test_a_nan_in_one_element_is_found_and_nothing_stays(place: Place, warpctl) -> None:
    write_models(place)
    bad = dict(MODELS["three"])
    bad["model.norm.weight"] = np.array([1, 1, np.nan, 1, 1, 1], np.float32)
    write_folder(place.folder / "three", model_files(bad))
    write_recipe(place, {"one": 2, "two": 1, "three": 1})

    said = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out")

    assert said.code == 2
    assert "error: tensor model.norm.weight of three has nan at [2]\nhint: that checkpoint cannot be merged" in said.err
    assert not list((place.folder / "out").glob("*"))


def test_an_average_beyond_bfloat16_is_refused(place: Place, warpctl) -> None:
    write_models(place)
    for name in ("one", "two"):
        huge = {**MODELS[name], "model.norm.weight": np.full(6, 3.4e38, np.float32)}
        write_folder(place.folder / name, model_files(huge))
    write_recipe(place, {"one": 1, "two": 1}, "bfloat16")

    said = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out")

    assert said.code == 2
    assert "averaging tensor model.norm.weight gives values beyond bfloat16" in said.err
