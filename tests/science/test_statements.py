"""What the paper says and a small WARP run shows, through the product itself: spec, `warpctl run`, published points.

The real specs/tiny-cpu.yaml on the laboratory of seed 0, run seed 0: every figure below is the same on every run of one machine.
Not asserted, because this scale does not show them: the EMA anchor's front above a tuned SFT anchor's, task vectors at right
angles, iteration 2's front above iteration 1's at equal KL, KL(EMA) > KL(SFT). docs/science.md has the seeds and figures.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.science.measured_run import Measured, make_laboratory, run_spec

pytestmark = [pytest.mark.science, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("science")
    make_laboratory(folder / "tiny")
    return Measured.read(run_spec(folder / "run", folder / "tiny"))


def test_1_the_merged_policy_is_far_above_sft(run):
    gain = run.merged(1).reward - run.sft.reward

    assert gain > 0.7, f"statement 1: reward(SLERP of iteration 1) - reward(SFT) = {gain:.3f}"


@pytest.mark.parametrize("iteration", [1, 2])
def test_2_slerp_is_not_below_its_ends(run, iteration):
    ends, merged = [point.reward for point in run.members[iteration]], run.merged(iteration).reward

    assert merged >= sum(ends) / 2 - 0.03, f"statement 2: SLERP {merged:.3f}, mean of ends {sum(ends) / 2:.3f}"
    assert merged >= max(ends) - 0.10, f"statement 2: SLERP {merged:.3f}, better end {max(ends):.3f}"


@pytest.mark.parametrize("iteration", [1, 2])
def test_3_kl_and_reward_rise_with_the_liti_rate(run, iteration):
    for low, high in pairwise(run.fronts[iteration]):
        assert low.kl < high.kl, f"statement 3, iteration {iteration}: {low} before {high}"
        assert low.reward < high.reward, f"statement 3, iteration {iteration}: {low} before {high}"


def test_4_the_liti_front_lies_above_the_trajectories(run):
    gap = run.gap_over_trajectories(1)

    assert gap > 0.05, f"statement 4: mean gap at equal KL = {gap:.3f}"


@pytest.mark.parametrize("iteration", [1, 2])
def test_5_weights_are_nearly_parallel_and_task_vectors_are_not(run, iteration):
    summary = run.merges[iteration]

    assert summary["minWeightCosine"] > 0.99, f"statement 5: full-weight cosine {summary['minWeightCosine']:.4f}"
    assert 0 < summary["cosine"] < 0.5, f"statement 5: task-vector cosine {summary['cosine']:.3f}"


def test_6_iteration_2_reaches_a_higher_reward(run):
    first, second = run.merged(1).reward, run.merged(2).reward

    assert second > first, f"statement 6: SLERP of iteration 2 {second:.3f}, of iteration 1 {first:.3f}"


def test_7_without_an_anchor_the_policy_drifts_away_and_the_truth_with_it(run):
    """lab.md: KL(no anchor) > 2 KL(EMA), and KL(EMA) > KL(SFT), at equal beta, steps and seed.

    In this laboratory the first ratio is 3.4 here, 1.6 and 1.2 with run seeds 1 and 2, 1.8 and 6.4 in two runs outside the product: more than 1 is
    asserted. The second (0.95, 1.90, 1.37, 0.98, 0.93) is not. docs/science.md names it as not reproduced.
    """
    ema, free = run.members[1][0], run.controls["NoAnchor"]

    assert free.kl > ema.kl, f"statement 7: KL without an anchor {free.kl:.2f}, with the EMA {ema.kl:.2f}"
    assert run.controls["SftAnchor"].kl < free.kl, f"statement 7: SFT anchor {run.controls['SftAnchor']}, none {free}"


def test_the_ground_truth_declines_late(run):
    """Over-optimisation: along iteration 2's front the learned reward rises to its end, the ground truth does not."""
    truths = [point.truth for point in run.fronts[2]]

    assert max(truths) > truths[-1] + 0.2, f"ground truth along iteration 2's front: {truths}"
