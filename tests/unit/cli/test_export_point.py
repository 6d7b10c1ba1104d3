"""Which point `warpctl export` takes, and that a failing export says why."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.unit.cli.conftest import Place
from warpctl.cli.export_point import choose_by_kl, choose_by_rate, export_task, shared_spec
from warpctl.cli.run_reference import RunReference, resolve
from warpctl.errors import UserError
from warpctl.spec.compute import PodTemplate


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
    assert small.why == "highest trained-on reward (there is no held-out one) among 1 point with KL at most 2"
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


def test_the_held_out_reward_decides_as_on_the_page(chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    """The merged policy has the highest trained-on reward, LITI 0.3 the highest held-out one."""
    reference, observed = chosen
    front = reference.front()
    front["measures"] = ["reward", "truth"]
    for entry in front["points"]:
        entry["heldOut"] = {"truth": {"mean": {"liti/0.3": 3.0, "sft": 0.0}.get(entry["name"], 1.0)}}
    monkeypatch.setattr(RunReference, "front", lambda _: front)

    assert choose_by_kl(reference, observed, "200").label == "LITI 0.3"
    assert choose_by_kl(reference, observed, "200").why == (
        "highest held-out reward truth among 3 points with KL at most 200"
    )


def test_a_run_that_made_nothing_better_than_the_sft_policy_says_so(chosen, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, observed = chosen
    front = reference.front()
    front["points"][0]["reward"]["mean"] = 7.0
    monkeypatch.setattr(RunReference, "front", lambda _: front)

    point = choose_by_kl(reference, observed, "200")

    assert point.label == "merged (LITI 1)"
    assert point.why.endswith("; by it the SFT policy itself is better than any of them")


def test_what_is_shared_of_the_spec_has_no_pod_template(chosen) -> None:
    reference, _ = chosen
    template = PodTemplate(env=({"name": "HF_TOKEN", "value": "hf_secret"},))
    spec = reference.run.spec
    compute = spec.compute.model_copy(update={"rl": spec.compute.rl.model_copy(update={"pod_template": template})})
    run = reference.run.model_copy(update={"spec": spec.model_copy(update={"compute": compute})})

    assert "hf_secret" in run.model_dump_json(by_alias=True, exclude_unset=True)
    assert "hf_secret" not in str(shared_spec(run))
    assert (
        shared_spec(run)["spec"]["models"]
        == reference.run.model_dump(mode="json", by_alias=True, exclude_unset=True)["spec"]["models"]
    )


def test_an_export_that_fails_says_why(finished: Place, warpctl, tmp_path) -> None:
    """The fake run's artifacts hold no model."""
    said = warpctl(finished, "export", "demo", "--max-kl", "2", "--to", str(tmp_path / "out"))

    assert said.code == 1
    assert said.err.startswith("error: the policy of merge/1 has no config.json, no tokenizer")
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--max-kl -1 --to out", "error: --max-kl must not be negative, got -1"),
        ("--max-kl 2 --to out --push", "error: --push goes with --to hf://owner/name only"),
        ("--max-kl 2 --to out --dtype float16", "error: invalid value for '--dtype'"),
        ("--max-kl 2 --to hf://one-word", "error: hf://one-word does not name a repository"),
        ("--max-kl 2 --to hf://datasets/a/b", "error: hf://datasets/a/b is not a repository of models"),
    ],
)
def test_what_cannot_be_meant_is_bad_input(finished: Place, warpctl, arguments: str, said: str) -> None:
    answer = warpctl(finished, "export", "demo", *arguments.split())

    assert answer.code == 2
    assert answer.err.startswith(said)
