"""The sampler draws what transformers would: the same logits, the same distribution, whatever leaves the batch when."""

from __future__ import annotations

import math

import pytest
import torch

from tests.builders.architectures import CONFIGS, FUSED, VOCABULARY, make_model
from warpctl.rl.decoder import FusedDecoder, ReservedLayer, TransformersDecoder, decoder_for
from warpctl.rl.logprobs import completion_logprobs, left_padded
from warpctl.rl.sampling import gumbel_noise, sample, top_p_filtered
from warpctl.spec.training import Sampling

PROMPTS = [[1, 5, 6], [1, 7, 8, 9, 10, 11, 12], [1, 5], [1, 30, 31, 32], [1, 5, 6]]
EQUAL_PROMPTS = [[1, 5, 6], [1, 7, 8], [1, 30, 31]]


def settings(**values):
    return Sampling.model_validate({"temperature": "0.9", "maxNewTokens": 12, **values})


def draw(model, prompts, seed=0, *, ends=frozenset({2, 3, 4, 5}), sampling=None, **more):
    generator = torch.Generator().manual_seed(seed)
    return sample(
        model,
        prompts,
        sampling=sampling or settings(),
        end_tokens=ends,
        pad_token=0,
        generator=generator,
        **more,
    )


@pytest.mark.parametrize("kind", [TransformersDecoder, FusedDecoder])
@pytest.mark.parametrize("prompts", [PROMPTS, EQUAL_PROMPTS], ids=["padded", "equal"])
@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_gives_the_logits_of_a_whole_forward_pass(name, prompts, kind):
    """Token by token with a cache, rows leaving half way, against one uncached pass of transformers for each row."""
    if kind is FusedDecoder and name not in FUSED:
        kind = TransformersDecoder
    model = make_model(name)
    tokens = torch.randint(4, VOCABULARY, (len(prompts), 10), generator=torch.Generator().manual_seed(1))
    alive = torch.arange(len(prompts))

    with torch.no_grad():
        decoder = kind(model, capacity=20)
        logits = [decoder.prefill(*left_padded(prompts, 0, model.device))]
        for t in range(10):
            if t == 5:
                decoder.keep(torch.tensor([0, 2]))
                alive = torch.tensor([0, 2])
            logits.append(decoder.step(tokens[alive, t]))
        for row in (0, 2):
            sequence = torch.tensor([prompts[row] + tokens[row].tolist()])
            expected = model(input_ids=sequence).logits[0, len(prompts[row]) - 1 :]
            found = [step[row if t <= 5 else row // 2] for t, step in enumerate(logits)]
            torch.testing.assert_close(torch.stack(found), expected, rtol=2e-5, atol=2e-5)


def test_small_plain_models_are_decoded_fused_and_others_by_transformers():
    kinds = {name: type(decoder_for(make_model(name), capacity=20)) for name in CONFIGS}

    assert {name for name, kind in kinds.items() if kind is FusedDecoder} == set(FUSED)
    assert isinstance(decoder_for(make_model("mistral-window"), capacity=6), FusedDecoder)
    assert isinstance(decoder_for(make_model("gemma").bfloat16(), capacity=20), TransformersDecoder)
    assert isinstance(decoder_for(make_model("gemma").train(), capacity=20), TransformersDecoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert isinstance(decoder_for(make_model("gemma"), capacity=20), TransformersDecoder)


def test_plain_layers_keep_their_states_in_reserved_memory():
    decoder = TransformersDecoder(make_model("llama"), capacity=9)
    decoder.prefill(torch.tensor([[1, 5, 6]]), None)
    layer = decoder.cache.layers[0]
    before = layer.key_store.data_ptr()
    decoder.step(torch.tensor([7]))

    assert isinstance(layer, ReservedLayer)
    assert layer.key_store.shape[2] == 9
    assert layer.key_store.data_ptr() == before == layer.keys.data_ptr()
    assert layer.get_seq_length() == 4


@pytest.mark.parametrize("name", ["gemma", "gemma2", "qwen2"])
def test_sampled_logprobs_are_those_of_a_forward_pass(name):
    """At the sampling temperature, the end of sequence included, and of the whole distribution under top-p too."""
    model = make_model(name)
    drawn = draw(model, PROMPTS * 3, sampling=settings(topP="0.6", temperature="1.3"))

    logprobs_BT, _ = completion_logprobs(model, drawn.prompts, drawn.tokens, temperature=1.3, pad_token=0)

    for row, logprobs in enumerate(drawn.logprobs):
        torch.testing.assert_close(logprobs, logprobs_BT[row, : drawn.lengths[row]].detach(), rtol=3e-5, atol=3e-5)


def test_completions_end_with_their_first_end_token_or_at_the_limit():
    drawn = draw(make_model("gemma"), PROMPTS * 8)

    assert len(set(drawn.lengths)) > 4
    for tokens, is_complete, logprobs in zip(drawn.tokens, drawn.is_complete, drawn.logprobs, strict=True):
        ends = [t for t, token in enumerate(tokens) if token in {2, 3, 4, 5}]
        assert ends == ([len(tokens) - 1] if is_complete else [])
        assert is_complete or len(tokens) == 12
        assert len(logprobs) == len(tokens)
    assert drawn.prompts == PROMPTS * 8


def test_a_completion_does_not_depend_on_when_others_end():
    """With other end tokens rows leave at other times; as far as both go, every row holds the same tokens."""
    model = make_model("llama")

    never, often = draw(model, PROMPTS * 6, ends=frozenset({99})), draw(model, PROMPTS * 6)

    assert sum(often.lengths) < 0.8 * sum(never.lengths)
    for short, long in zip(often.tokens, never.tokens, strict=True):
        assert short == long[: len(short)]


def test_the_same_seed_gives_the_same_completions_and_another_seed_others():
    model = make_model("qwen2")

    first, again, other = draw(model, PROMPTS), draw(model, PROMPTS), draw(model, PROMPTS, seed=1)

    assert first.tokens == again.tokens
    assert all(torch.equal(a, b) for a, b in zip(first.logprobs, again.logprobs, strict=True))
    assert first.tokens != other.tokens


def test_small_batches_are_put_back_in_the_order_of_the_prompts():
    model = make_model("gemma")
    drawn = draw(model, PROMPTS, max_batch=2)

    logprobs_BT, _ = completion_logprobs(model, PROMPTS, drawn.tokens, temperature=0.9, pad_token=0)

    for row, logprobs in enumerate(drawn.logprobs):
        torch.testing.assert_close(logprobs, logprobs_BT[row, : drawn.lengths[row]].detach(), rtol=3e-5, atol=3e-5)


def test_kept_logits_are_those_that_tokens_were_drawn_from():
    model = make_model("gemma")
    drawn = draw(model, PROMPTS * 4, keep_logits=True, max_batch=7)

    for row, logits in enumerate(drawn.logits):
        assert logits.shape == (drawn.lengths[row], VOCABULARY)
        with torch.no_grad():
            whole = model(input_ids=torch.tensor([drawn.prompts[row] + drawn.tokens[row]])).logits[0]
        torch.testing.assert_close(logits, whole[len(drawn.prompts[row]) - 1 : -1], rtol=3e-5, atol=3e-5)


def chi_square(counts, probabilities):
    """(statistic, degrees of freedom) with cells of at least five expected."""
    expected = probabilities * counts.sum()
    order = expected.argsort(descending=True)
    counts, expected = counts[order], expected[order]
    large = int((expected >= 5).sum())
    cells = torch.cat([counts[:large], counts[large:].sum()[None]])
    means = torch.cat([expected[:large], expected[large:].sum()[None]])
    if means[-1] < 1e-9:
        assert cells[-1] == 0
        cells, means = cells[:-1], means[:-1]
    return (((cells - means) ** 2) / means).sum().item(), len(cells) - 1


@pytest.mark.parametrize("top_p", ["1", "0.7"])
def test_samples_follow_transformers_distribution_by_chi_square(top_p):
    """20,000 first tokens and, after the likeliest of them, second tokens, against the exact distributions.

    transformers' own warpers make the expected distribution. Bound: mean + 5 standard deviations of chi-square.
    """
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

    model, prompt, count = make_model("gemma", seed=3), [1, 5, 6], 20_000
    sampling = settings(maxNewTokens=2, topP=top_p)
    drawn = draw(model, [prompt] * count, sampling=sampling, ends=frozenset({99}), max_batch=2000)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(0.9), TopPLogitsWarper(float(top_p))])
    tokens = torch.tensor(drawn.tokens)

    def expected_after(prefix):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prefix])).logits[:, -1]
        return warpers(torch.tensor([prefix]), logits)[0].double().softmax(dim=-1)

    favourite = tokens[:, 0].mode().values.item()
    second = tokens[tokens[:, 0] == favourite][:, 1]
    for seen, prefix in ((tokens[:, 0], prompt), (second, [*prompt, favourite])):
        counts = torch.bincount(seen, minlength=VOCABULARY).double()
        statistic, freedom = chi_square(counts, expected_after(prefix))
        assert freedom >= 3
        assert statistic < freedom + 5 * math.sqrt(2 * freedom)


def test_top_p_keeps_the_fewest_tokens_that_reach_the_mass():
    """Probabilities .5, .3, .15, .05: .5 is reached by one token, .6 by two, .8 by two (to rounding), .99 by four."""
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = {
        top_p: (top_p_filtered(logits, top_p) > -math.inf)[0].tolist() for top_p in (1e-6, 0.45, 0.6, 0.9, 0.99, 1.0)
    }

    assert kept == {
        1e-6: [True, False, False, False],
        0.45: [True, False, False, False],
        0.6: [True, True, False, False],
        0.9: [True, True, True, False],
        0.99: [True] * 4,
        1.0: [True] * 4,
    }


def test_gumbel_noise_has_its_mean_and_variance_and_no_nan():
    """Mean 0.5772 and variance pi^2 / 6 over a million draws, within five standard errors."""
    noise = gumbel_noise((1000, 1000), torch.Generator().manual_seed(0), torch.device("cpu"))

    assert noise.dtype == torch.float32
    assert not noise.isnan().any()
    assert noise.mean().item() == pytest.approx(0.57722, abs=5 * 1.2825 / 1000)
    assert noise.double().var().item() == pytest.approx(math.pi**2 / 6, abs=5 * 3.5e-3)
