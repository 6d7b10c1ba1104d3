"""The recipes that mergekit merged, given to `warpctl merge --recipe`: the same result, up to its float32 arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.integration.mergekit.cases import INIT, ONE, SHAPES
from warpctl.cli.main import run_command

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("case", ["plain", "bf16", "zz-liti"])
def test_a_recipe_gives_what_mergekit_gives(tmp_path: Path, mergekit: Path, case: str) -> None:
    assert run_command(["merge", "--recipe", str(mergekit / f"{case}.json"), "--out", str(tmp_path / "out")]) == 0

    ours = load_file(tmp_path / "out" / "model.safetensors")
    theirs = {
        name: value for path in (mergekit / case).glob("*.safetensors") for name, value in load_file(path).items()
    }
    assert sorted(ours) == sorted(theirs) == sorted(SHAPES)
    for name in SHAPES:
        step = np.linalg.norm(ONE[name] - INIT[name])
        assert np.linalg.norm(ours[name] - theirs[name]) < 5e-6 * step, name


def test_a_recipe_of_three_is_refused_as_mergekit_does(tmp_path: Path, mergekit: Path, capsys) -> None:
    assert run_command(["merge", "--recipe", str(mergekit / "triple.json"), "--out", str(tmp_path / "out")]) == 2
    assert "nuslerp takes two models beside the base, not 3" in capsys.readouterr().err
