"""The recipes that mergekit merged, given to `warpctl merge --recipe`: the same result, up to its float32 arithmetic."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.integration.mergekit.cases import AVERAGES, EMBEDDING, HEAD, INIT, MODELS, NORM, ODD, ONE, SHAPES, SLERPS
from warpctl.cli.main import run_command
from warpctl.storage.plain_folder import PlainFolder
from warpctl.storage.tensors import Checkpoint

Weights = dict[str, np.ndarray]
pytestmark = pytest.mark.integration


def both(tmp_path: Path, mergekit: Path, case: str) -> tuple[Weights, Weights]:
    """What we make of a recipe, and what mergekit made of it."""
    assert run_command(["merge", "--recipe", str(mergekit / f"{case}.json"), "--out", str(tmp_path / "out")]) == 0

    ours = load_file(tmp_path / "out" / "model.safetensors")
    theirs = {
        name: value for path in (mergekit / case).glob("*.safetensors") for name, value in load_file(path).items()
    }
    assert sorted(ours) == sorted(theirs) == sorted(SHAPES)
    return ours, theirs


@pytest.mark.parametrize("case", ["plain", "bf16", "zz-liti"])
def test_a_recipe_gives_what_mergekit_gives(tmp_path: Path, mergekit: Path, case: str) -> None:
    ours, theirs = both(tmp_path, mergekit, case)
    for name in SHAPES:
        step = np.linalg.norm(ONE[name] - INIT[name])
        assert np.linalg.norm(ours[name] - theirs[name]) < 5e-6 * step, name


@pytest.mark.parametrize("case", AVERAGES)
def test_an_average_of_several_is_that_of_mergekit(tmp_path: Path, mergekit: Path, case: str) -> None:
    ours, theirs = both(tmp_path, mergekit, case)
    # theirs adds up in float32: a rounding for each model, and one for the division
    for name in SHAPES:
        largest = max(np.abs(MODELS[model][0][name]).max() for model in AVERAGES[case][0])
        error = np.abs(ours[name].astype(np.float64) - theirs[name]).max()
        assert error <= 4 * 2.0**-24 * largest, name


@pytest.mark.parametrize("case", [case for case in SLERPS if case not in ("slerp-bf16", "slerp-odd")])
def test_slerp_of_two_is_that_of_mergekit(tmp_path: Path, mergekit: Path, case: str) -> None:
    ours, theirs = both(tmp_path, mergekit, case)
    # theirs computes in float32, where angles of a few degrees lose most
    for name in SHAPES:
        error = np.linalg.norm(ours[name].astype(np.float64) - theirs[name]) / np.linalg.norm(theirs[name])
        assert error < 1e-6, name


def test_slerp_in_bfloat16_is_that_of_mergekit_to_one_rounding(tmp_path: Path, mergekit: Path) -> None:
    arguments = ["merge", "--recipe", str(mergekit / "slerp-bf16.json"), "--out", str(tmp_path / "out")]
    assert run_command(arguments) == 0

    ours = Checkpoint.open(PlainFolder.open(str(tmp_path / "out")))
    theirs = Checkpoint.open(PlainFolder.open(str(mergekit / "slerp-bf16")))
    assert sorted(ours.tensors) == sorted(theirs.tensors) == sorted(SHAPES)
    pairs = [(ours.read(name).ravel(), theirs.read(name).ravel()) for name in SHAPES]
    mine, other = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    # the same float64 and float32 figures up to 1e-6, so that few fall on two sides of a tie
    assert (np.abs(mine - other) <= 2.0**-7 * np.abs(other)).all()
    assert (mine != other).mean() < 1e-3


def test_slerp_differs_where_vectors_are_nearly_parallel_or_opposite_or_zero(tmp_path: Path, mergekit: Path) -> None:
    ours, theirs = both(tmp_path, mergekit, "slerp-odd")

    def close(found: Weights, name: str, keep: float, add: float) -> bool:
        expected = keep * ONE[name].astype(np.float64) + add * ODD[name].astype(np.float64)
        return bool(np.linalg.norm(found[name] - expected) < 1e-6 * np.linalg.norm(ONE[name]))

    def slerp_factors(name: str) -> tuple[float, float]:
        one, odd = (weights[name].astype(np.float64).ravel() for weights in (ONE, ODD))
        angle = math.acos(one @ odd / np.linalg.norm(one) / np.linalg.norm(odd))
        return math.sin(0.75 * angle) / math.sin(angle), math.sin(0.25 * angle) / math.sin(angle)

    # theirs is linear where |cosine| > 0.9995; ours is SLERP up to 6e-5 degrees, and to 0.08 degrees from antiparallel
    for name in (HEAD, EMBEDDING):
        assert close(theirs, name, 0.75, 0.25), name
        assert not close(theirs, name, *slerp_factors(name)), name
        assert close(ours, name, *slerp_factors(name)), name
    assert np.linalg.norm(ours[HEAD] - theirs[HEAD]) < 1.25e-4 * np.linalg.norm(ours[HEAD])
    assert np.linalg.norm(ours[EMBEDDING]) > 0.9 * np.linalg.norm(ONE[EMBEDDING])
    # theirs takes the undefined angle for 90 degrees
    assert close(theirs, NORM, math.sin(0.75 * math.pi / 2), 0)
    assert close(ours, NORM, 0.75, 0)


def test_a_recipe_of_three_is_refused_as_mergekit_does(tmp_path: Path, mergekit: Path, capsys) -> None:
    assert run_command(["merge", "--recipe", str(mergekit / "triple.json"), "--out", str(tmp_path / "out")]) == 2
    assert "nuslerp takes two models beside the base, not 3" in capsys.readouterr().err
