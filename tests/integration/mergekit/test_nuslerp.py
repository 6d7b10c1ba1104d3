"""Our merge beside mergekit's nuslerp and linear: equal where the definitions agree; each difference is pinned here.

docs/merging.md ("Beside mergekit") tells the same in words.
"""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.builders.merge_stage import merge_files
from tests.integration.mergekit.cases import INIT, MERGES, NORM, ONE, SHAPES, TWO, files
from warpctl.spec.merge_method import Granularity
from warpctl.storage.tensors import Checkpoint

pytestmark = pytest.mark.integration


def theirs_of(folder, case):
    tensors = {}
    for path in (folder / case).glob("*.safetensors"):
        tensors.update(load_file(path))
    return tensors


def ours_of(tmp_path, case, *, granularity=Granularity.TENSOR, prefix="merged/"):
    artifact = merge_files(str(tmp_path / "store"), [files(name) for name in MERGES[case]], granularity=granularity)
    checkpoint = Checkpoint.open(artifact, prefix=prefix)
    return {name: checkpoint.read(name) for name in checkpoint.tensors}


def distance(one, two, name):
    """Norm of the difference, relative to that of the task vector of member 1."""
    return float(np.linalg.norm(one[name] - two[name]) / np.linalg.norm(ONE[name] - INIT[name]))


@pytest.mark.parametrize("case", ["plain", "bf16"])
def test_tensor_by_tensor_two_policies_merge_as_with_nuslerp(tmp_path, mergekit, case):
    ours, theirs = ours_of(tmp_path, case), theirs_of(mergekit, case)
    assert sorted(ours) == sorted(theirs) == sorted(SHAPES)
    # theirs computes in float32: task vectors of norm 0.1 beside weights of 1 lose about 1e-6 of themselves
    assert max(distance(ours, theirs, name) for name in SHAPES) < 5e-6


def test_next_init_is_their_linear_merge_of_init_and_nuslerp(tmp_path, mergekit):
    ours, theirs = ours_of(tmp_path, "plain", prefix="next-init/"), theirs_of(mergekit, "zz-liti")
    assert max(distance(ours, theirs, name) for name in SHAPES) < 5e-6


def test_layer_by_layer_differs_since_nuslerp_knows_tensors_only(tmp_path, mergekit):
    ours, theirs = ours_of(tmp_path, "plain", granularity=Granularity.LAYER), theirs_of(mergekit, "plain")
    alone = ["model.embed_tokens.weight", NORM, "lm_head.weight"]
    assert max(distance(ours, theirs, name) for name in alone) < 5e-6
    in_layers = [distance(ours, theirs, name) for name in SHAPES if name not in alone]
    assert 1e-3 < max(in_layers) < 0.5


def test_a_zero_task_vector_weighs_differently(tmp_path, mergekit):
    step = (TWO[NORM] - INIT[NORM]).astype(np.float64)
    # theirs takes the undefined angle for 90 degrees; ours is LERP: halfway between the two policies
    np.testing.assert_allclose(theirs_of(mergekit, "zero")[NORM] - INIT[NORM], 0.5**0.5 * step, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours_of(tmp_path, "zero")[NORM] - INIT[NORM], 0.5 * step, rtol=0, atol=1e-6)


def test_nearly_opposite_task_vectors_of_different_length_blow_up_in_nuslerp_only(tmp_path, mergekit):
    norm = np.linalg.norm(ONE[NORM] - INIT[NORM])
    assert np.linalg.norm(theirs_of(mergekit, "opposite")[NORM] - INIT[NORM]) > 100 * norm
    assert np.linalg.norm(ours_of(tmp_path, "opposite")[NORM] - INIT[NORM]) == pytest.approx(0.5 * norm, rel=5e-3)


def test_a_third_policy_is_refused_by_nuslerp_and_merged_by_us(tmp_path, mergekit):
    assert "requires exactly 2 non-base inputs" in (mergekit / "triple.error").read_text()
    assert sorted(ours_of(tmp_path, "triple")) == sorted(SHAPES)
