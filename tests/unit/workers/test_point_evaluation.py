"""The evaluator on a small Gemma: interpolation, KL by both roads, pairing, rewards, batches, refusals."""

import contextlib
import math
from decimal import Decimal

import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM

from tests.builders.evaluations import evaluate_task
from warpctl.errors import Interrupted, NumericsError
from warpctl.rl.logprobs import completion_logprobs
from warpctl.workers import point_evaluation
from warpctl.workers.point_evaluation import Evaluator
from warpctl.workers.policies import Vocabulary
from warpctl.workers.prompt_set import PromptSet

END, PAD, SIZE = 1, 0, 23
PROMPTS = PromptSet(
    texts=tuple(f"prompt {number}" for number in range(5)),
    tokens=((2, 5, 6), (2, 7), (2, 8, 9, 4), (2, 3), (2, 11, 12)),
    num_dropped=0,
    num_cut=0,
)


class Numbers:
    """A tokenizer whose text is the tokens' numbers, special ones included."""

    def decode(self, tokens, *, skip_special_tokens):
        assert skip_special_tokens
        return " ".join(map(str, tokens))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model(seed, *, layers=1, scale=8.0):
    torch.manual_seed(seed)
    config = GemmaConfig(
        vocab_size=SIZE,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        pad_token_id=PAD,
        bos_token_id=2,
        eos_token_id=END,
        dtype="float32",
    )
    made = GemmaForCausalLM(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(scale)
    return made.eval()


def task(**settings):
    return evaluate_task(
        training={"steps": [1], "sampling": {"temperature": "0.8", "maxNewTokens": 7}},
        rewards=[
            {"type": "Function", "name": "long", "weight": "2", "function": "a:b", "revision": "1"},
            {"type": "Function", "name": "early", "weight": "-0.5", "function": "a:c", "revision": "1"},
        ],
        heldOutRewards=[{"type": "Function", "name": "truth", "function": "a:d", "revision": "1"}],
        **settings,
    )


SCORERS = {
    "long": lambda prompts, completions: [len(text.split()) for text in completions],
    "early": lambda prompts, completions: [float(prompt.split()[1]) for prompt in prompts],
    "truth": lambda prompts, completions: [float(text.split()[0]) if text else -1.0 for text in completions],
}


def reading(source):
    """A Source: these weights."""

    def read(targets):
        for name, target in targets.items():
            target.detach().copy_(source.get_parameter(name).detach())

    return read


def evaluator(*, source=None, prompts=PROMPTS, scorers=SCORERS, num_points=2, **settings):
    made = Evaluator(
        task(**settings),
        model(1),
        vocabulary=Vocabulary(Numbers(), frozenset({END}), PAD),
        prompts=prompts,
        scorers=scorers,
        arithmetic=contextlib.nullcontext,
    )
    made.load_source(reading(model(2) if source is None else source), num_points=num_points)
    return made


def completions_of(point):
    return [[int(token) for token in text.split()] for text in point.completions]


def test_weights_on_the_line_are_a_float32_mean_of_both_ends():
    made = evaluator()
    sft, source = dict(model(1).named_parameters()), dict(model(2).named_parameters())

    for rate in ("0", "0.3", "1", "1.5"):
        made.set_weights(Decimal(rate))
        for name, weight in made._policy.named_parameters():
            expected = (1 - float(rate)) * sft[name].double() + float(rate) * source[name].double()
            torch.testing.assert_close(weight.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rate", ["0", "0.1", "0.3", "0.5", "0.8", "1", "1.5"])
@pytest.mark.parametrize("num_points", [1, 2])
def test_every_point_has_the_bits_of_torchs_lerp(rate, num_points):
    """Whether its source was read into the policy or is kept beside it."""
    made = evaluator(num_points=num_points)
    made.set_weights(Decimal(rate))

    for name, weight in made._policy.named_parameters():
        sft, source = (model(seed).get_parameter(name).detach() for seed in (1, 2))
        expected = {"0": sft, "1": source}.get(rate, sft.clone().lerp_(source, float(rate)))
        assert torch.equal(weight, expected), name


def test_the_source_of_one_point_takes_no_memory_of_its_own():
    made = evaluator(num_points=1)
    given = []
    for num_points in (1, 2):
        made.load_source(given.append, num_points=num_points)

    mine = [{weight.data_ptr() for weight in targets.values()} for targets in given]
    policy, sft = ({weight.data_ptr() for weight in each.parameters()} for each in (made._policy, made._sft))
    assert mine[0] == policy
    assert not mine[1] & (policy | sft)
    assert not policy & sft


def test_the_ends_of_the_line_are_exact_and_sft_is_never_written_to():
    made = evaluator()

    for rate, end in (("1", model(2)), ("0", model(1))):
        made.evaluate(Decimal(rate), {})
        for name, weight in made._policy.named_parameters():
            assert torch.equal(weight, end.get_parameter(name))
    for name, weight in made._sft.named_parameters():
        assert torch.equal(weight, model(1).get_parameter(name))


def test_the_plain_kl_is_the_log_ratio_of_the_completions_under_two_fresh_models():
    point = evaluator().evaluate(Decimal(1), {})

    ratios = []
    for prompt, completion in zip(PROMPTS.tokens, completions_of(point), strict=True):
        with torch.no_grad():
            own, sft = (
                completion_logprobs(model(seed), [prompt], [completion], temperature=0.8, pad_token=PAD)[0].sum()
                for seed in (2, 1)
            )
        ratios.append(float(own - sft))
    assert point.kl_k1 == pytest.approx(ratios, abs=1e-4)
    assert max(map(abs, ratios)) > 0.5


def test_the_rao_blackwellised_kl_is_summed_over_the_prefixes_of_the_completions():
    point = evaluator().evaluate(Decimal(1), {})

    for prompt, completion, found in zip(PROMPTS.tokens, completions_of(point), point.kl_rb, strict=True):
        total = 0.0
        for length in range(len(completion)):
            prefix = torch.tensor([[*prompt, *completion[:length]]])
            with torch.no_grad():
                own, sft = ((model(s)(prefix).logits[0, -1] / 0.8).double().log_softmax(-1) for s in (2, 1))
            total += float((own.exp() * (own - sft)).sum())
        assert found == pytest.approx(total, rel=1e-4)


def test_both_estimates_approach_the_same_mean_over_many_completions():
    point = evaluator(numGenerations=400).evaluate(Decimal("0.5"), {})

    plain, exact = torch.tensor(point.kl_k1), torch.tensor(point.kl_rb)
    assert float(plain.mean()) == pytest.approx(float(exact.mean()), abs=4 * float(plain.std()) / math.sqrt(2000))
    assert float(exact.std()) < float(plain.std())


def test_logits_kept_from_decoding_and_a_second_forward_pass_agree(monkeypatch):
    kept = evaluator().evaluate(Decimal("0.7"), {})
    monkeypatch.setattr(point_evaluation, "KEPT_NUMBERS", 0)
    monkeypatch.setattr(point_evaluation, "FORWARD_NUMBERS", SIZE * 7 * 2)  # two completions at a time

    again = evaluator().evaluate(Decimal("0.7"), {})

    assert again.completions == kept.completions
    assert again.kl_rb == pytest.approx(kept.kl_rb, abs=1e-4)
    assert again.kl_k1 == pytest.approx(kept.kl_k1, abs=1e-4)


def test_sft_is_no_distance_from_itself():
    point = evaluator().evaluate(Decimal(0), {})

    assert set(point.kl_k1) == set(point.kl_rb) == {0.0}


def test_the_same_policy_says_the_same_at_any_rate_and_in_any_order():
    """Where source and SFT are equal the noise alone decides: it must be the same for all points."""
    made = evaluator(source=model(1))

    said = [made.evaluate(Decimal(rate), {}).completions for rate in ("1", "0.3", "0", "0.3")]

    assert said[0] == said[1] == said[2] == said[3]


def test_another_seed_says_something_else():
    assert evaluator(seed=1).evaluate(Decimal(1), {}).completions != evaluator().evaluate(Decimal(1), {}).completions


def test_rewards_are_weighted_and_held_out_ones_stay_apart():
    point = evaluator(numGenerations=2).evaluate(Decimal(1), {"a": 1})

    assert set(point.scores) == {"long", "early"}
    assert set(point.held_out) == {"truth"}
    assert point.scores["early"] == (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)
    assert point.reward == tuple(
        2 * long - 0.5 * early for long, early in zip(point.scores["long"], point.scores["early"], strict=True)
    )
    assert point.identity == {"a": 1}


def test_length_counts_the_end_and_truncated_is_a_completion_without_one():
    point = evaluator(numGenerations=20).evaluate(Decimal(1), {})

    tokens = completions_of(point)
    assert list(point.lengths) == [len(completion) for completion in tokens]
    assert list(point.truncated) == [completion[-1] != END for completion in tokens]
    assert 0 < sum(point.truncated) < 100


def test_batches_have_noise_of_their_own_and_keep_the_order_of_prompts(monkeypatch):
    monkeypatch.setattr(point_evaluation, "BATCH_ROWS", (2, 2))
    twins = PromptSet(("prompt 0", "prompt 1") * 2, ((2, 5), (2, 5)) * 2, num_dropped=0, num_cut=0)

    point = evaluator(prompts=twins).evaluate(Decimal(1), {})

    assert point.prompts == twins.texts
    assert point.completions[:2] != point.completions[2:]


@pytest.mark.parametrize("kept_rows", [0, 1, 100])
def test_how_completions_are_grouped_for_the_kl_changes_no_number(monkeypatch, kept_rows):
    whole = evaluator(numGenerations=3).evaluate(Decimal("0.7"), {})
    assert len(set(whole.lengths)) > 2
    # the same noise, 7 tokens a row: windows that keep the logits of no batch, of one or of all
    monkeypatch.setattr(point_evaluation, "KEPT_NUMBERS", SIZE * 7 * kept_rows * point_evaluation.BATCH_ROWS[1])
    monkeypatch.setattr(point_evaluation, "FORWARD_ROWS", 4)

    parts = evaluator(numGenerations=3).evaluate(Decimal("0.7"), {})

    assert parts.completions == whole.completions
    assert parts.kl_rb == pytest.approx(whole.kl_rb, abs=1e-4)
    assert parts.kl_k1 == pytest.approx(whole.kl_k1, abs=1e-4)


def test_windows_of_several_batches_keep_every_completion_in_its_place(monkeypatch):
    monkeypatch.setattr(point_evaluation, "BATCH_ROWS", (4, 4))
    monkeypatch.setattr(point_evaluation, "KEPT_NUMBERS", SIZE * 7 * 8)  # windows of 8, 8, 4 rows
    point = evaluator(numGenerations=4).evaluate(Decimal(1), {})
    monkeypatch.setattr(point_evaluation, "KEPT_NUMBERS", 0)

    alone = evaluator(numGenerations=4).evaluate(Decimal(1), {})

    assert point.completions == alone.completions
    assert point.lengths == alone.lengths
    assert point.kl_rb == pytest.approx(alone.kl_rb, abs=1e-4)


@pytest.mark.parametrize(("tokens", "rows"), [(1, 256), (32, 256), (64, 128), (128, 64), (2048, 64)])
def test_short_completions_are_sampled_in_larger_batches(tokens, rows):
    assert point_evaluation.batch_rows(tokens) == rows


def test_a_request_to_stop_is_obeyed_between_batches(monkeypatch):
    monkeypatch.setattr(point_evaluation, "BATCH_ROWS", (2, 2))
    calls = []

    def pause():
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted("asked to stop")

    with pytest.raises(Interrupted):
        evaluator().evaluate(Decimal(1), {}, pause=pause)
    assert len(calls) == 2


def test_weights_that_give_no_number_are_refused():
    source = model(2)
    with torch.no_grad():
        source.get_parameter("model.norm.weight").fill_(math.nan)

    with pytest.raises(NumericsError, match=r"KL .* not finite|no finite"):
        evaluator(source=source).evaluate(Decimal(1), {})
