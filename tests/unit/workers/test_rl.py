"""The RL worker: Algorithm 1's traps, what it publishes, what it refuses, and where it stops."""

from __future__ import annotations

import json
import math

import pytest
import safetensors.torch
import torch

from tests.builders.rl_stage import (
    context_of,
    metrics_of,
    policy_files,
    prompt_lines,
    rl_stage,
    run_rl,
    small_policy,
    training,
)
from warpctl import artifacts
from warpctl.errors import InputError, NumericsError
from warpctl.spec.models import FunctionReward
from warpctl.spec.stage_input import ImportTask
from warpctl.storage.store import Store
from warpctl.workers import resume_state
from warpctl.workers.policies import load_policy
from warpctl.workers.rl import main, train_step
from warpctl.workers.rl_run import load_run

HERE = "tests.unit.workers.test_rl"


@pytest.fixture
def storage(tmp_path):
    return str(tmp_path / "store")


def weights_of(data):
    return safetensors.torch.load(data)


def published_weights(artifact):
    return weights_of(artifact.read("model.safetensors"))


def loaded_run(stage):
    """The run as it is before its first step."""
    context = context_of(stage)
    return load_run(context, stage.task), context


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).clone()


class TakesNotes:
    """Stands where the metrics log stands; timings are not of interest."""

    def add_timing(self, record):
        self.timing = record


@pytest.mark.parametrize("is_sft", [True, False])
def test_an_init_that_is_the_sft_policy_is_read_once_and_held_twice(storage, monkeypatch, is_sft):
    stage = rl_stage(storage)
    if is_sft:
        sft, _, *others = stage.inputs
        stage = stage.model_copy(update={"inputs": (sft, sft.model_copy(update={"role": "init"}), *others)})
    read = []
    monkeypatch.setattr(
        "warpctl.workers.rl_run.load_policy", lambda *args, **named: read.append(1) or load_policy(*args, **named)
    )

    rl_run, _ = loaded_run(stage)

    assert len(read) == (1 if is_sft else 2)
    assert torch.equal(flat(rl_run.sft), flat(rl_run.policy))
    policy, sft = (list(model.parameters()) for model in (rl_run.policy, rl_run.sft))
    assert not {parameter.data_ptr() for parameter in policy} & {parameter.data_ptr() for parameter in sft}
    assert all(parameter.requires_grad for parameter in policy)
    assert not any(parameter.requires_grad for parameter in sft)


def test_the_policy_is_published_and_never_the_anchor(storage):
    """Trap 1. With mu = 1/1000 the anchor has hardly moved from the init; what is published has."""
    stage = rl_stage(storage, settings=training(emaRate="0.001", resumeState={"everySteps": 1}))
    rl_run, context = loaded_run(stage)
    start = flat(rl_run.policy)
    for step in range(1, 7):
        train_step(rl_run, step, TakesNotes(), context)

    published = published_weights(run_rl(stage))

    expected = dict(rl_run.policy.named_parameters())
    assert sorted(published) == sorted(expected)
    for name, parameter in expected.items():
        assert torch.equal(published[name], parameter), name
        assert published[name].dtype == torch.float32
    moved, anchor_moved = (flat(rl_run.policy) - start).norm(), (flat(rl_run.anchor) - start).norm()
    assert anchor_moved < 0.01 * moved
    assert moved > 0.01


def test_the_anchor_restarts_at_the_iterations_init_and_not_at_sft(storage):
    """Line 4. Init and SFT differ here; before the first step policy and anchor are the init, bit by bit."""
    rl_run, _ = loaded_run(rl_stage(storage, init_seed=3))

    assert torch.equal(flat(rl_run.policy), flat(small_policy(3)))
    assert torch.equal(flat(rl_run.anchor), flat(small_policy(3)))
    assert torch.equal(flat(rl_run.sft), flat(small_policy(0)))
    assert rl_run.anchor is not rl_run.policy


def test_the_anchor_follows_the_policy_after_every_step(storage):
    """Line 9: anchor <- (1 - mu) anchor + mu theta, with the theta of after the step."""
    rl_run, context = loaded_run(rl_stage(storage))
    expected = flat(rl_run.anchor).double()
    for step in (1, 2, 3):
        train_step(rl_run, step, TakesNotes(), context)
        expected = 0.9 * expected + 0.1 * flat(rl_run.policy).double()

    torch.testing.assert_close(flat(rl_run.anchor).double(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("anchor", "kl"), [("Ema", "anchor"), ("Sft", "sft"), ("NoAnchor", None)])
def test_each_anchor_is_what_it_says(storage, anchor, kl):
    stage = rl_stage(storage, settings=training(anchor=anchor), init_seed=3)
    rl_run, context = loaded_run(stage)
    record = train_step(rl_run, 1, TakesNotes(), context)

    if kl is None:
        assert rl_run.anchor is None
        assert "kl/anchor" not in record
        assert record["reward"] == pytest.approx(record["score"], abs=1e-6)
    elif kl == "sft":
        assert rl_run.anchor is rl_run.sft
        assert record["kl/anchor"] == record["kl/sft"]
        assert record["reward"] == pytest.approx(record["score"] - 0.1 * record["kl/sft"], abs=1e-5)
    else:
        # the policy is still its own anchor at the first step, and far from SFT
        assert abs(record["kl/anchor"]) < 1e-4
        assert abs(record["kl/sft"]) > 0.1
        assert record["reward"] == pytest.approx(record["score"], abs=1e-4)


def test_a_step_is_adam_along_reward_times_grad_log_pi(storage):
    """Line 8, worked out beside: the same samples, log pi by transformers' forward, beta inside the reward, torch's Adam."""
    stage = rl_stage(
        storage, settings=training(anchor="Sft", optimizer={"learningRate": "1e-3", "warmupSteps": 0}), init_seed=3
    )
    rl_run, context = loaded_run(stage)
    reference, sft = small_policy(3), small_policy(0)
    seen = {}

    def spy(prompts, completions):
        seen["completions"] = list(completions)
        return [float(place) for place in range(len(completions))]

    rl_run.scorers = {"truth": spy}
    tokens = {}
    original = rl_run.vocabulary.tokenizer.decode

    def remember(row, **settings):
        tokens.setdefault("rows", []).append(list(row))
        return original(row, **settings)

    rl_run.vocabulary.tokenizer.decode = remember
    from warpctl.rl.randomness import derived_seed, prompt_rows

    rows = prompt_rows(len(rl_run.prompts), first=0, count=4, seed=derived_seed(rl_run.seed, "prompts"))
    train_step(rl_run, 1, TakesNotes(), context)

    def log_pi(model, row, completion):
        prompt = list(rl_run.prompts.tokens[row])
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        return (logits / 0.9).log_softmax(dim=-1).gather(1, torch.tensor(completion)[:, None]).sum()

    pairs = list(zip(rows, tokens["rows"], strict=True))
    policy_logs = [log_pi(reference, *pair) for pair in pairs]
    with torch.no_grad():
        kl = [own.item() - log_pi(sft, *pair).item() for own, pair in zip(policy_logs, pairs, strict=True)]
    reward = [place - 0.1 * value for place, value in enumerate(kl)]
    advantage = [value - sum(reward) / 4 for value in reward]
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    (-sum(a * log for a, log in zip(advantage, policy_logs, strict=True)) / 4).backward()
    torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
    optimizer.step()

    # Adam's first step is the gradient's sign: where a gradient is near 0, rounding decides
    gradient = torch.cat([parameter.grad.flatten() for parameter in reference.parameters()]).abs()
    clear = gradient > 1e-5
    assert clear.float().mean() > 0.7
    torch.testing.assert_close(flat(rl_run.policy)[clear], flat(reference)[clear], rtol=0, atol=2e-5)


def test_micro_batches_take_the_same_step(storage):
    losses, weights = [], []
    for micro_batch in (None, 2, 1):
        rl_run, context = loaded_run(rl_stage(storage, settings=training(microBatchSize=micro_batch), init_seed=3))
        record = train_step(rl_run, 1, TakesNotes(), context)
        losses.append((record["loss"], record["gradientNorm"]))
        weights.append(flat(rl_run.policy))

    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)
    assert (weights[1] - weights[0]).abs().mean() < 1e-6


def test_members_differ_in_prompts_and_sampling_alone(storage):
    runs = [loaded_run(rl_stage(storage, member=member))[0] for member in (1, 2)]

    assert torch.equal(flat(runs[0].policy), flat(runs[1].policy))
    assert runs[0].prompts == runs[1].prompts
    assert runs[0].seed != runs[1].seed


def test_what_lies_beside_the_weights_is_published_with_them(storage):
    """Tokenizer, generation config and chat template are the init's; the weights load as a model again."""
    artifact = run_rl(rl_stage(storage))
    model, vocabulary = load_policy(artifact)

    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        assert artifact.read(name) == policy_files()[name], name
    assert json.loads(artifact.read("config.json"))["dtype"] == "float32"
    assert vocabulary.end_tokens == {2}
    assert torch.equal(
        flat(model), torch.cat([published_weights(artifact)[n].flatten() for n, _ in model.named_parameters()])
    )


def test_every_step_leaves_its_metrics_and_evaluations_come_between(storage):
    """Six steps, evaluated before the first, after the third and after the last."""
    records = metrics_of(run_rl(rl_stage(storage)))

    assert [record["step"] for record in records] == [0, 1, 2, 3, 4, 5, 6]
    assert [record["step"] for record in records if "evaluation/kl" in record] == [0, 3, 6]
    assert records[0]["evaluation/kl"] == pytest.approx(0, abs=1e-6)
    assert records[-1]["evaluation/kl"] > 0
    assert [record["learningRate"] for record in records[1:]] == pytest.approx([1.5e-3, *[3e-3] * 5])
    for record in records[1:]:
        assert 0 < record["entropy"] < math.log(159) + 0.1  # an estimate from few tokens of a nearly uniform policy
        assert 1 <= record["length"] <= 6
        assert 0 <= record["truncatedShare"] <= 1
        assert record["gradientNorm"] > 0


@pytest.mark.parametrize("evaluation", [{"everySteps": 1, "numPrompts": 4}, {"everySteps": 5, "numPrompts": 0}])
def test_evaluating_along_the_run_changes_nothing_in_training(storage, evaluation):
    reference = run_rl(rl_stage(storage))
    artifact = run_rl(rl_stage(storage, settings=training(evaluation=evaluation), key="3" * 64))

    assert artifact.read("model.safetensors") == reference.read("model.safetensors")


def test_saving_along_the_run_changes_nothing_in_training(storage):
    reference = run_rl(rl_stage(storage))
    artifact = run_rl(rl_stage(storage, settings=training(resumeState={"everySteps": 1}), key="3" * 64))

    assert artifact.read("model.safetensors") == reference.read("model.safetensors")
    assert artifact.read("metrics.jsonl") == reference.read("metrics.jsonl")


def test_a_run_that_goes_too_far_ends_early_published_and_marked(storage):
    """The init is far from SFT here, so the running KL is above the limit at once."""
    artifact = run_rl(rl_stage(storage, settings=training(maxKl="0.05"), init_seed=3))

    assert artifact.manifest.outcome == {"steps": 1, "endedEarly": "MaxKl"}
    assert [record["step"] for record in metrics_of(artifact)] == [0, 1]
    assert "model.safetensors" in artifact.names()


def test_a_finished_run_is_not_marked(storage):
    assert run_rl(rl_stage(storage)).manifest.outcome == {"steps": 6}


def test_resume_states_go_once_the_stage_is_committed(storage):
    stage = rl_stage(storage)
    run_rl(stage)

    assert resume_state.find(Store.open(storage), stage) == []
    assert not [f for f in Store.open(storage).list(artifacts.attempts("rl", stage.key)) if "/resume/" in f.path]


CALLS = {"count": 0}


def fails_at_the_fifth_call(prompts, completions):
    CALLS["count"] += 1
    return [math.nan if CALLS["count"] == 5 else 1.0 * place for place in range(len(completions))]


def test_a_reward_that_is_not_a_number_stops_the_run_and_keeps_the_last_good_state(storage):
    CALLS["count"] = 0
    reward = FunctionReward(type="Function", name="bad", function=f"{HERE}:fails_at_the_fifth_call", revision="1")
    settings = training(evaluation={"everySteps": 100, "numPrompts": 0})
    stage = rl_stage(storage, rewards=[reward], settings=settings)

    with pytest.raises(NumericsError, match="reward 'bad' gave nan"):
        main(context_of(stage))

    assert [state.step for state in resume_state.find(Store.open(storage), stage)] == [4]
    assert Store.open(storage).read_or_none(artifacts.marker("rl", stage.key)) is None


def test_a_nan_in_the_arithmetic_stops_with_step_and_batch_before_it_reaches_the_weights(storage):
    stage = rl_stage(storage)
    rl_run, context = loaded_run(stage)
    with torch.no_grad():
        next(iter(rl_run.policy.parameters()))[9] = math.nan
    before = flat(rl_run.policy)

    with pytest.raises(NumericsError, match=r"step 3: .*gradientNorm.* not finite; the weights are those of step 2"):
        train_step(rl_run, 3, TakesNotes(), context)

    assert torch.equal(flat(rl_run.policy).nan_to_num(), before.nan_to_num())
    dump = json.loads(context.store.read(f"{artifacts.attempt('rl', stage.key, '1')}/failure.json"))
    assert len(dump["completions"]) == len(dump["prompts"]) == len(dump["rewards"]) == 4
    assert dump["metrics"]["step"] == "3"


def test_a_prompt_set_that_is_empty_after_filtering_is_refused(storage):
    from tests.builders.rl_stage import PROMPTS

    stage = rl_stage(storage, prompts=PROMPTS.model_copy(update={"max_prompt_tokens": 3}))

    with pytest.raises(InputError, match="no prompt is left of 12 in memory://prompts: 12 are longer than 3 tokens"):
        main(context_of(stage))


def test_a_tokenizer_without_a_pad_token_serves(storage):
    """Padding is masked, so it trains to the same weights as one that has a pad token."""
    lines = prompt_lines()
    files = dict(policy_files())
    settings = json.loads(files["tokenizer_config.json"])
    del settings["pad_token"]
    files["tokenizer_config.json"] = json.dumps(settings).encode()

    with_pad = run_rl(rl_stage(storage, lines=lines))
    without = run_rl(rl_stage(f"{storage}-2", lines=lines, init_files=files))

    assert published_weights(without).keys() == published_weights(with_pad).keys()
    for name, values in published_weights(without).items():
        torch.testing.assert_close(values, published_weights(with_pad)[name], rtol=1e-4, atol=1e-5)


def test_another_kind_of_task_is_refused(storage):
    stage = rl_stage(storage).model_copy(update={"task": ImportTask(what="Model", uri="x", revision="main")})

    with pytest.raises(InputError, match="not an RL run"):
        main(context_of(stage))
