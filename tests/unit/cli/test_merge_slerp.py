"""`slerp` and `nuslerp` of a recipe: the formula in float64, rounded once, whatever is stored and however it is read."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from tests.builders.checkpoints import model_files, moved, random_weights, rounded
from tests.builders.model_folder import write_folder
from tests.unit.cli.conftest import Place
from warpctl.storage.plain_folder import PlainFolder
from warpctl.storage.tensors import Checkpoint
from warpctl.workers import merge_reading

SHAPES = {
    "lm_head.weight": (20, 30),
    **{f"model.layers.{layer}.{name}.weight": (40, 30) for layer in range(3) for name in ("attn.q", "mlp.up")},
    "model.norm.weight": (30,),
}
INIT = random_weights(0, shapes=SHAPES)
MODELS = {"init": INIT, "one": moved(INIT, 1, scale=0.5), "two": moved(INIT, 2, scale=0.8)}
F32, BF16 = "F32", "BF16"


def write_models(place: Place, models: dict[str, Any] = MODELS, *, dtypes: dict[str, str] | None = None) -> None:
    for name, weights in models.items():
        write_folder(place.folder / name, model_files(weights, dtype=(dtypes or {}).get(name, F32)))


def write_recipe(place: Place, recipe: dict[str, Any]) -> None:
    (place.folder / "recipe.yaml").write_text(json.dumps(recipe))


def slerp(t: object, dtype: str = "float32") -> dict[str, Any]:
    models = [{"model": "one"}, {"model": "two"}]
    return {"merge_method": "slerp", "base_model": "one", "models": models, "parameters": {"t": t}, "dtype": dtype}


def nuslerp(one: float, two: float, dtype: str = "float32", *, base: str = "init") -> dict[str, Any]:
    models = [{"model": name, "parameters": {"weight": weight}} for name, weight in (("one", one), ("two", two))]
    return {"merge_method": "nuslerp", **({"base_model": base} if base else {}), "models": models, "dtype": dtype}


def formula(u: np.ndarray, v: np.ndarray, t: float) -> np.ndarray:
    """Independent of the code: angles by atan2 of unit vectors, of whole tensors."""
    a, b = u / np.linalg.norm(u), v / np.linalg.norm(v)
    omega = 2 * math.atan2(np.linalg.norm(a - b), np.linalg.norm(a + b))
    return (math.sin((1 - t) * omega) * u + math.sin(t * omega) * v) / math.sin(omega)


def merged(place: Place) -> dict[str, np.ndarray]:
    out = Checkpoint.open(PlainFolder.open(str(place.folder / "out")))
    return {name: out.read(name) for name in SHAPES}


def assert_rounded_once(found: np.ndarray, exact: np.ndarray, dtype: str) -> None:
    step = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64) * (65536 if dtype == "bfloat16" else 1)
    # An angle's last bits move a value by 1e-13 of the tensor's largest: beside a half step that is nothing but near zero.
    assert (np.abs(found - exact) <= step * (0.5 + 1e-5) + 1e-12).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", [(F32, F32), (BF16, BF16), (BF16, "F16"), (F32, BF16)], ids="-".join)
@pytest.mark.parametrize("t", [0, 0.25, 1])
def test_slerp_is_that_of_numpy_rounded_once(
    place: Place, warpctl, t: float, stored: tuple[str, str], dtype: str
) -> None:
    dtypes = dict(zip(("one", "two"), stored, strict=True))
    write_models(place, dtypes=dtypes)
    write_recipe(place, slerp(t, dtype))

    said = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out")

    assert said.code == 0, said.err
    one, two = (rounded(MODELS[name], dtypes[name]) for name in ("one", "two"))
    for name, values in merged(place).items():
        exact = formula(one[name].astype(np.float64), two[name].astype(np.float64), t)
        assert_rounded_once(values, exact, dtype)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (slerp(0), MODELS["one"]),
        (slerp(1), MODELS["two"]),
        (nuslerp(2, 0), MODELS["one"]),
        (nuslerp(0, 2), MODELS["two"]),
        (nuslerp(0, 2, base=""), MODELS["two"]),
    ],
)
def test_the_ends_are_the_models_bit_for_bit(
    place: Place, warpctl, recipe: dict[str, Any], expected: dict[str, np.ndarray]
) -> None:
    write_models(place)
    write_recipe(place, recipe)

    assert warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out").code == 0

    assert {name: values.tobytes() for name, values in merged(place).items()} == {
        name: values.tobytes() for name, values in expected.items()
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", [F32, BF16])
@pytest.mark.parametrize(("weights", "t"), [((1, 1), 0.5), ((3, 1), 0.25), ((0.1, 0.9), 0.9), ((0, 0), 0.5)])
@pytest.mark.parametrize("base", ["init", ""])
def test_nuslerp_is_that_of_numpy_rounded_once(
    place: Place, warpctl, base: str, weights: tuple[float, float], t: float, stored: str, dtype: str
) -> None:
    write_models(place, dtypes=dict.fromkeys(MODELS, stored))
    write_recipe(place, nuslerp(*weights, dtype, base=base))

    said = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out")

    assert said.code == 0, said.err
    init, one, two = (rounded(MODELS[name], stored) for name in ("init", "one", "two"))
    for name, values in merged(place).items():
        start = init[name].astype(np.float64) if base else np.zeros(SHAPES[name])
        assert_rounded_once(values, start + formula(one[name] - start, two[name] - start, t), dtype)


def test_a_little_memory_changes_no_bit(place: Place, warpctl, monkeypatch: pytest.MonkeyPatch) -> None:
    write_models(place)
    write_recipe(place, slerp(0.3))
    assert warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "whole").code == 0

    monkeypatch.setattr("warpctl.workers.merge_weights.weights_bytes", lambda *_: 1)
    monkeypatch.setattr(merge_reading, "weights_bytes", lambda *_: 1)
    said = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out", "--max-shard-size", "5KB")

    assert "(all groups read twice" in said.err
    whole = Checkpoint.open(PlainFolder.open(str(place.folder / "whole")))
    assert {name: values.tobytes() for name, values in merged(place).items()} == {
        name: whole.read(name).tobytes() for name in SHAPES
    }


def test_t_may_depend_on_the_tensor(place: Place, warpctl) -> None:
    write_models(place)
    sources = [{"model": name, "layer_range": [0, 3]} for name in ("one", "two")]
    t = [{"filter": "attn", "value": [0, 1]}, {"filter": "mlp", "value": [1, 0, 0.25]}, {"value": 0.75}]
    recipe = slerp(t)
    del recipe["models"]
    write_recipe(place, {**recipe, "slices": [{"sources": sources}]})

    said = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out")

    assert said.code == 0, said.err
    expected = dict.fromkeys(SHAPES, 0.75)
    expected |= {f"model.layers.{layer}.attn.q.weight": at for layer, at in enumerate([0, 0.5, 1])}
    expected |= {f"model.layers.{layer}.mlp.up.weight": at for layer, at in enumerate([1, 0, 0.25])}
    for name, values in merged(place).items():
        exact = formula(MODELS["one"][name].astype("f8"), MODELS["two"][name].astype("f8"), expected[name])
        assert_rounded_once(values, exact, "float32")
    record = json.loads((place.folder / "out" / "merge.json").read_text())
    assert {group["group"]: group["slerpWeight"] for group in record["groups"]} == expected
    assert record["slerpWeight"][0] == {"filter": "attn", "values": [0, 1]}
    assert "t = 0 to 1" in said.err


def test_it_says_what_it_interpolates(place: Place, warpctl) -> None:
    write_models(place)
    write_recipe(place, slerp(0.25))

    dry = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out", "--dry-run", "-o", "json")
    done = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out")

    num_bytes = sum(2 * 4 * math.prod(shape) for shape in SHAPES.values())
    assert json.loads(dry.out)["plan"]["bytesToRead"] == num_bytes
    assert done.code == 0, done.err
    for said in ("model 1  one  (at t = 0)", "model 2  two  (at t = 1)", "from model 1"):
        assert said in done.err
    assert "of weights, tensor by tensor, 8 groups, t = 0.25" in done.err
    head, *rows = done.out.splitlines()
    assert head.split() == ["GROUP", "COSINE", "ANGLE", "NORMS", "WEIGHTS", "T"]
    assert rows[0].split()[-1] == "0.25"
    assert "merged 2 models, 8 groups" in done.out
    assert "did not move" not in done.err
    record = json.loads((place.folder / "out" / "merge.json").read_text())
    assert (record["holds"], record["slerpOf"], record["slerpWeight"]) == ("slerp", "Weights", 0.25)
    assert (record["init"], record["policies"], record["granularity"]) == ("one", ["two"], "Tensor")
    assert not {"litiRate", "order", "linearWeights"} & set(record)
    group = record["groups"][0]
    u, v = (MODELS[name]["lm_head.weight"].astype("f8").ravel() for name in ("one", "two"))
    cosine = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
    omega = math.acos(cosine)
    assert group["cosines"][0][1] == pytest.approx(cosine, rel=1e-12)
    assert group["norms"] == pytest.approx([np.linalg.norm(u), np.linalg.norm(v)], rel=1e-12)
    expected = [math.sin(0.75 * omega) / math.sin(omega), math.sin(0.25 * omega) / math.sin(omega)]
    assert group["weights"] == pytest.approx(expected, rel=1e-10)
    assert group["slerpWeight"] == 0.25


def test_of_nuslerp_it_says_where_between_the_policies(place: Place, warpctl) -> None:
    write_models(place)
    write_recipe(place, nuslerp(1, 3))

    done = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out")

    assert "of task vectors, tensor by tensor, 8 groups, t = 0.75" in done.err
    record = json.loads((place.folder / "out" / "merge.json").read_text())
    assert (record["holds"], record["slerpOf"], record["slerpWeight"]) == ("nextInit", "TaskVectors", 0.75)
    assert (record["init"], record["policies"]) == ("init", ["one", "two"])


def test_tensors_without_an_angle_are_averaged_and_named(place: Place, warpctl) -> None:
    norm, head, up = "model.norm.weight", "lm_head.weight", "model.layers.1.mlp.up.weight"
    one = MODELS["one"]
    two = {**MODELS["two"], norm: one[norm], head: -2 * one[head], up: 0 * one[up]}
    write_models(place, {"one": one, "two": two})
    write_recipe(place, slerp(0.25))

    done = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out")

    assert done.code == 0, done.err
    assert "3 groups without an angle: LERP instead of SLERP" in done.out
    record = json.loads((place.folder / "out" / "merge.json").read_text())
    assert record["summary"]["degenerate"] == {"Zero": 1, "Parallel": 1, "Antiparallel": 1}
    found = merged(place)
    for name in (norm, head, up):
        exact = 0.75 * one[name].astype("f8") + 0.25 * two[name]
        assert_rounded_once(found[name], exact, "float32")


def test_a_nan_is_found_and_nothing_stays(place: Place, warpctl) -> None:
    bad = {**MODELS["two"], "model.norm.weight": np.full(30, np.nan, np.float32)}
    write_models(place, {**MODELS, "two": bad})
    write_recipe(place, slerp(0.25))

    said = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out")

    assert said.code == 2
    assert "error: tensor model.norm.weight of two has nan at [0]\nhint: that checkpoint cannot be merged" in said.err
    assert not list((place.folder / "out").glob("*"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"t": [{"filter": "mlp", "value": 0.5}]}, "no value of the recipe's t is for tensor lm_head.weight"),
        ({"layer_range": [0, 2]}, "slices: layer_range ends at 2, the models have 3 layers"),
    ],
)
def test_a_recipe_for_other_tensors_is_one_line(place: Place, warpctl, changes: dict[str, Any], why: str) -> None:
    write_models(place)
    recipe = slerp(changes.get("t", 0.5))
    if "layer_range" in changes:
        sources = [{**model, **changes} for model in recipe.pop("models")]
        recipe["slices"] = [{"sources": sources}]
    write_recipe(place, recipe)

    said = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out")

    assert (said.code, said.out, len(said.err.splitlines())) == (2, "", 2)
    assert why in said.err


def test_a_base_of_zeros_is_not_taken_for_a_policy_that_did_not_move(place: Place, warpctl) -> None:
    write_models(place, {"one": {name: 0 * values for name, values in INIT.items()}, "two": MODELS["two"]})
    write_recipe(place, slerp(0.25))

    done = warpctl(place, "merge", "--recipe", "recipe.yaml", "--out", "out")

    assert done.code == 0, done.err
    assert "did not move" not in done.err
    assert "8 groups without an angle" in done.out
