"""Which point `warpctl export` takes, and that a failing export says why."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.unit.cli.conftest import Place
from warpctl.cli.export_point import choose_by_kl, choose_by_rate, export_task
from warpctl.cli.run_reference import resolve
from warpctl.errors import UserError


@pytest.fixture
def chosen(finished: Place):
    """A run whose points have KL 2 (LITI 0.3), 9 (RL run 1) and 11 (merged), the higher the better."""
    reference = resolve("demo", str(finished.folder / "state"))
    return reference, reference.engine().observe()


def test_the_best_point_within_the_kl_is_taken(chosen) -> None:
    reference, observed = chosen
    small, middle, large = (choose_by_kl(reference, observed, text) for text in ("2", "10", "200"))

    assert (small.label, small.stage_id, small.prefix, small.liti_rate) == (
        "LITI 0.3",
        "merge/1",
        "merged/",
        Decimal("0.3"),
    )
    assert (middle.label, middle.stage_id, middle.prefix, middle.liti_rate) == ("RL run 1", "rl/1/1", "", Decimal(1))
    assert (large.label, large.stage_id, large.liti_rate) == ("merged (LITI 1)", "merge/1", Decimal(1))


def test_a_point_whose_weights_were_collected_is_passed_over(chosen) -> None:
    reference, observed = chosen
    key = next(
        iter(key for key, seen in observed.committed.items() if "init" in seen.parents and "sft" in seen.parents)
    )
    del observed.committed[key]

    assert choose_by_kl(reference, observed, "10").label == "LITI 0.3"


def test_a_kl_that_no_point_keeps_is_refused_with_the_lowest(chosen) -> None:
    with pytest.raises(UserError, match="no point has a KL of at most 1 nats") as caught:
        choose_by_kl(*chosen, "1")

    assert caught.value.hint == "the lowest is 2 nats: iteration 1, LITI 0.3"


def test_any_rate_may_be_asked_for_and_knows_whether_it_was_evaluated(chosen) -> None:
    reference, observed = chosen
    evaluated, other = (choose_by_rate(reference, observed, text, 0) for text in ("0.30", "0.7"))

    assert evaluated.estimates is not None
    assert evaluated.estimates["kl"]["mean"] == 2.0
    assert (other.liti_rate, other.iteration, other.estimates) == (Decimal("0.7"), 1, None)
    with pytest.raises(UserError, match="the run has 1 iterations"):
        choose_by_rate(reference, observed, "1", 2)


def test_the_task_pins_everything_by_digest(chosen) -> None:
    reference, observed = chosen
    task = export_task(reference, observed, choose_by_kl(reference, observed, "2"), destination="out")
    digests = {seen.manifest_digest for seen in observed.committed.values()}

    assert {task.sft.manifest_digest, task.source.manifest_digest} <= digests
    assert task.card["digests"] == {
        "SFT policy": task.sft.manifest_digest,
        "merged policy": task.source.manifest_digest,
    }
    assert task.card["confidenceLevel"] == 0.95


def test_an_export_that_fails_says_why(finished: Place, warpctl, tmp_path) -> None:
    """The fake run's artifacts hold no weights."""
    said = warpctl(finished, "export", "demo", "--max-kl", "2", "--to", str(tmp_path / "out"))

    assert said.code == 1
    assert said.err.startswith("error: no model.safetensors and no model.safetensors.index.json among its 1 files")
    assert not (tmp_path / "out" / "config.json").exists()
