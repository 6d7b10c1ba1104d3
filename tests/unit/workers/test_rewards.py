"""Rewards: what comes back is checked, endpoints that are down for a while are waited for, nonsense is refused."""

from __future__ import annotations

import json
import math

import httpx
import pytest
import torch
from transformers import GemmaConfig, GemmaForSequenceClassification

from tests.builders.checkpoints import publish
from tests.builders.rl_stage import rl_stage
from warpctl.errors import InputError, NumericsError, RetryableError
from warpctl.spec.models import CheckpointReward, FunctionReward, HttpReward
from warpctl.storage.store import Store
from warpctl.tiny.grammar import EOS, PAD, VOCABULARY
from warpctl.tiny.policy import policy_config
from warpctl.tiny.preferences import reward_config
from warpctl.tiny.recipe import Recipe
from warpctl.tiny.tokenizer import TOKENS, make_tokenizer, tokens_of
from warpctl.workers.reward_model import RewardModel, special_tokens_around
from warpctl.workers.rewards import HttpScorer, checked, load_scorer, load_scorers

HERE = "tests.unit.workers.test_rewards"
PROMPTS = ["write a review of this new lamp about sound :", "write a review of this old fan about size :"]
COMPLETIONS = ["the sound is great .", "i love this old fan . it has a great size ."]
ENDPOINT = HttpReward(type="Http", name="judge", url="http://judge/score", revision="1", timeout_seconds=3)


def function(name):
    return FunctionReward(type="Function", name="mine", function=name, revision="1")


def lengths(_prompts, completions):
    return [len(completion) for completion in completions]


def endpoint(*answers):
    """A scorer whose endpoint gives these answers in turn; an exception is raised, the last answer repeats."""
    calls = []

    def answer(request):
        calls.append(json.loads(request.content))
        given = answers[min(len(calls), len(answers)) - 1]
        if isinstance(given, Exception):
            raise given
        return given

    client = httpx.Client(transport=httpx.MockTransport(answer))
    return HttpScorer(ENDPOINT, client=client, wait_seconds=0.001), calls


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ([1.0], InputError, "gave 1 scores for 2 completions"),
        ([1.0, 2.0, 3.0], InputError, "gave 3 scores for 2 completions"),
        ([1.0, math.nan], NumericsError, "gave nan to the completion 'i love"),
        ([math.inf, 1.0], NumericsError, "gave inf to the completion 'the sound"),
        (["good", 1.0], InputError, "could not convert"),
        (None, InputError, "not iterable"),
        ([[1.0], [2.0]], InputError, "reward 'mine' answered"),
    ],
)
def test_what_a_reward_answers_is_checked(answer, error, message):
    with pytest.raises(error, match=message):
        checked("mine", lambda prompts, completions: answer)(PROMPTS, COMPLETIONS)


def test_answers_may_be_arrays_of_numbers():
    assert checked("mine", lambda prompts, completions: torch.tensor([1.0, 2.5]))(PROMPTS, COMPLETIONS) == [1.0, 2.5]


def test_a_function_is_imported_and_called_with_lists(tmp_path):
    stage = rl_stage(str(tmp_path))

    scorer = load_scorer(function(f"{HERE}:lengths"), stage, Store.open(str(tmp_path)))

    assert scorer(tuple(PROMPTS), tuple(COMPLETIONS)) == [float(len(text)) for text in COMPLETIONS]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such.package:score", "cannot be imported"),
        (f"{HERE}:no_such_function", "cannot be imported"),
        (f"{HERE}:PROMPTS", "is a list, not a function"),
    ],
)
def test_a_function_that_is_none_is_refused(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        load_scorer(function(name), rl_stage(str(tmp_path)), Store.open(str(tmp_path)))


def test_an_endpoint_is_asked_for_all_completions_at_once():
    scorer, calls = endpoint(httpx.Response(200, json={"scores": [0.5, 2]}))

    assert checked("judge", scorer)(PROMPTS, COMPLETIONS) == [0.5, 2.0]
    assert calls == [{"prompts": PROMPTS, "completions": COMPLETIONS}]


def test_an_endpoint_that_is_down_for_a_while_is_waited_for():
    scorer, calls = endpoint(
        httpx.ConnectError("refused"),
        httpx.Response(503),
        httpx.ReadTimeout("slow"),
        httpx.Response(429),
        httpx.Response(200, json={"scores": [1.0, 2.0]}),
    )

    assert scorer(PROMPTS, COMPLETIONS) == [1.0, 2.0]
    assert len(calls) == 5


@pytest.mark.parametrize("answer", [httpx.ConnectError("refused"), httpx.Response(502)])
def test_an_endpoint_that_stays_down_is_left_to_another_attempt(answer):
    scorer, calls = endpoint(answer)

    with pytest.raises(RetryableError, match="did not answer in 8 attempts"):
        scorer(PROMPTS, COMPLETIONS)
    assert len(calls) == 8


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(404), "refuses the request"),
        (httpx.Response(422, json={}), "refuses the request"),
        (httpx.Response(200, text="<html>"), "answered '<html>'"),
        (httpx.Response(200, json=[1.0, 2.0]), "answered"),
        (httpx.Response(200, json={"score": [1.0]}), "answered"),
        (httpx.Response(200, json={"scores": [1.0, "2.0"]}), "not numbers"),
        (httpx.Response(200, json={"scores": [True, False]}), "not numbers"),
        (httpx.Response(200, json={"scores": [1.0, None]}), "not numbers"),
    ],
)
def test_nonsense_from_an_endpoint_is_refused_at_once(answer, message):
    scorer, calls = endpoint(answer)

    with pytest.raises(InputError, match=message):
        scorer(PROMPTS, COMPLETIONS)
    assert len(calls) == 1


def bert(seed=0):
    from transformers import BertForSequenceClassification

    torch.manual_seed(seed)
    model = BertForSequenceClassification(reward_config(Recipe())).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5.0)  # scores that differ visibly
    return model


def test_a_checkpoint_scores_prompt_and_completion_as_one_text():
    """Its logit for <bos> prompt completion, each alone, without padding."""
    model = bert()
    scores = RewardModel(model, make_tokenizer(), name="learned")(PROMPTS, COMPLETIONS)

    for prompt, completion, score in zip(PROMPTS, COMPLETIONS, scores, strict=True):
        tokens = [TOKENS["<bos>"], *tokens_of(prompt), *tokens_of(completion)]
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([tokens])).logits[0, 0].item()
        assert score == pytest.approx(expected, abs=1e-5)
    assert abs(scores[0] - scores[1]) > 1e-2


def test_a_causal_classifier_without_a_pad_token_scores_its_last_true_token():
    """GemmaForSequenceClassification finds the last token by the pad token, which neither config nor tokenizer has."""
    config = GemmaConfig(**{**policy_config(Recipe(width=32)).to_dict(), "pad_token_id": None, "num_labels": 1})
    torch.manual_seed(0)
    model = GemmaForSequenceClassification(config).eval()
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    expected = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        tokens = [TOKENS["<bos>"], *tokens_of(prompt), *tokens_of(completion)]
        with torch.no_grad():
            expected.append(
                model.score(model.model(input_ids=torch.tensor([tokens])).last_hidden_state)[0, -1, 0].item()
            )

    scores = RewardModel(model, tokenizer, name="learned")(PROMPTS, COMPLETIONS)

    assert scores == pytest.approx(expected, abs=1e-5)
    assert model.config.pad_token_id == TOKENS[EOS] != TOKENS[PAD]


def test_many_completions_keep_their_order_through_the_batches():
    model = RewardModel(bert(), make_tokenizer(), name="learned")
    completions = [" ".join(VOCABULARY[20 + row % 90] for row in range(1 + place * 7 % 13)) for place in range(150)]

    together = model([PROMPTS[0]] * 150, completions)

    alone = [model([PROMPTS[0]], [completion])[0] for completion in completions[::37]]
    assert together[::37] == pytest.approx(alone, abs=1e-5)


def test_of_a_text_that_is_too_long_the_beginning_is_cut():
    model = RewardModel(bert(), make_tokenizer(), name="learned")

    (tokens,) = model.tokens([" ".join(["lamp"] * 80)], ["the sound is great ."])

    assert len(tokens) == 64
    assert tokens[0] == TOKENS["<bos>"]
    assert tokens[-5:] == tokens_of("the sound is great .")


def test_a_prompt_that_brings_its_special_tokens_is_not_given_them_twice():
    model = RewardModel(bert(), make_tokenizer(), name="learned")

    (tokens,) = model.tokens(["<bos> the lamp"], ["is great"])

    assert tokens == [TOKENS["<bos>"], *tokens_of("the lamp is great")]


def test_special_tokens_are_seen_on_an_example():
    assert special_tokens_around(make_tokenizer()) == ([TOKENS["<bos>"]], [])


def test_a_classifier_with_several_outputs_is_no_reward():
    model = bert()
    model.config.num_labels = 2

    with pytest.raises(InputError, match="its model has 2 outputs"):
        RewardModel(model, make_tokenizer(), name="learned")


def test_checkpoints_come_from_their_own_artifacts_and_a_policy_is_none(tmp_path):
    """Two rewards, each with its weights and tokenizer; a causal language model lacks the classification head."""
    storage = str(tmp_path / "store")
    store = Store.open(storage)

    def files(model):
        folder = tmp_path / "model"
        model.save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    from tests.builders.rl_stage import policy_files

    models = {"one": bert(1), "two": bert(2)}
    inputs = [publish(store, files(model), key=name[0] * 64, role=f"reward/{name}") for name, model in models.items()]
    inputs.append(publish(store, policy_files(), key="f" * 64, role="reward/policy"))
    rewards = [CheckpointReward(type="Checkpoint", name=name, uri="memory://x") for name in (*models, "policy")]
    stage = rl_stage(storage, further_inputs=inputs, rewards=rewards)

    scorers = load_scorers(rewards[:2], stage, store)

    for name, model in models.items():
        expected = RewardModel(model, make_tokenizer(), name=name)(PROMPTS, COMPLETIONS)
        assert scorers[name](PROMPTS, COMPLETIONS) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(InputError, match=r"reward 'policy' lacks 1 weights, the first is score.weight"):
        load_scorer(rewards[2], stage, store)
