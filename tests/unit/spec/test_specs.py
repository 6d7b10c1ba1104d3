"""The runnable examples parse, say what they promise in their headers, and hold the recipes that they name."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from warpctl.spec.merge_method import Granularity, SlerpOrder
from warpctl.spec.models import FunctionReward
from warpctl.spec.parse import parse_file
from warpctl.spec.training import Anchor, Baseline
from warpctl.spec.warp_run import Control

SPECS = sorted((Path(__file__).parents[3] / "specs").glob("*.yaml"))
FOLDER = SPECS[0].parent


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_an_example_parses_and_is_named_after_its_file(path):
    assert parse_file(path).metadata.name == path.stem


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_header_says_what_hardware_time_storage_cost_and_what_to_expect(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("What", "Hardware", "Time", "Storage", "Cost", "Expect"):
        assert any(line.startswith(f"# {word} ") for line in header), word


def test_there_are_the_three_examples_of_the_plan():
    assert {path.stem for path in SPECS} >= {"tiny-cpu", "gemma7b", "gemma2-2b-node"}


def test_gemma7b_has_the_papers_settings():
    spec = parse_file(FOLDER / "gemma7b.yaml").spec
    training = spec.training
    assert (spec.iterations, spec.rl_runs) == (5, 2)
    assert [training.steps_of(iteration) for iteration in range(1, 6)] == [9000, 7000, 7000, 5000, 5000]
    assert (training.batch_size, training.optimizer.warmup_steps) == (128, 100)
    assert training.optimizer.learning_rate == Decimal("1e-6")
    assert (training.anchor, training.ema_rate, training.kl_coefficient) == (
        Anchor.EMA,
        Decimal("0.01"),
        Decimal("0.1"),
    )
    assert training.sampling.temperature == Decimal("0.9")
    assert (training.max_kl, training.evaluation.every_steps) == (Decimal(200), 100)
    assert (spec.merge.granularity, spec.merge.order) == (Granularity.LAYER, SlerpOrder.PAPER)
    assert spec.merge.liti_rate == Decimal("0.3")
    assert spec.evaluation.liti_rates == tuple(map(Decimal, ("0.1", "0.3", "0.5", "0.8", "1")))
    assert spec.evaluation.hypervolume.max_kl == Decimal(200)
    assert "SUBSTITUTES" in (FOLDER / "gemma7b.yaml").read_text()


def test_tiny_cpu_is_recipe_q1():
    spec = parse_file(FOLDER / "tiny-cpu.yaml").spec
    training = spec.training
    assert (spec.iterations, spec.rl_runs, training.steps_of(2)) == (2, 2, 40)
    assert (training.batch_size, training.optimizer.warmup_steps) == (8, 8)
    assert training.optimizer.learning_rate == Decimal("7e-4")
    assert (training.optimizer.beta1, training.optimizer.beta2) == (Decimal("0.9"), Decimal("0.95"))
    assert (training.ema_rate, training.kl_coefficient) == (Decimal("0.02"), Decimal("0.1"))
    assert training.baseline is Baseline.BATCH_MEAN
    assert (training.sampling.temperature, training.sampling.max_new_tokens) == (Decimal("0.9"), 32)
    assert (training.resume_state.every_steps, training.evaluation.every_steps) == (10, 10)
    assert spec.merge.liti_rate == Decimal("0.3")
    assert spec.evaluation.liti_rates == tuple(map(Decimal, ("0.15", "0.3", "0.5", "0.75", "1")))
    assert (spec.evaluation.num_prompts, spec.evaluation.num_generations) == (256, 1)
    assert spec.controls == (Control.NO_ANCHOR, Control.SFT_ANCHOR)
    (truth,) = spec.models.held_out_rewards
    assert isinstance(truth, FunctionReward)
    assert truth.function == "warpctl.tiny.ground_truth:score"


def test_the_node_fits_its_eight_gpus():
    spec = parse_file(FOLDER / "gemma2-2b-node.yaml").spec
    first_iteration = spec.rl_runs + len(spec.controls)
    assert first_iteration * spec.compute.rl.nodes * spec.compute.rl.gpus <= 8
