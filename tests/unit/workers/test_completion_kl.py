"""KL of completions: enumeration on a model of two tokens, both estimators, masks and chunks."""

import itertools
import math

import pytest
import torch

from warpctl.workers import completion_kl
from warpctl.workers.completion_kl import kl_of_completions

TEMPERATURE = 0.7
LENGTH = 3
# Next-token logits of two tokens given the last one (2: the start), policy and SFT.
POLICY = torch.tensor([[0.3, -0.8], [1.1, 0.2], [-0.4, 0.9]])
SFT = torch.tensor([[-0.2, 0.1], [0.5, 0.9], [0.2, 0.3]])


def logits_along(table, completion):
    return torch.stack([table[last] for last in [2, *completion[:-1]]])


def probability(table, completion):
    logprobs = (logits_along(table, completion) / TEMPERATURE).log_softmax(-1)
    return math.exp(sum(float(logprobs[t, token]) for t, token in enumerate(completion)))


def kl(completions):
    tokens = torch.tensor(completions)
    policy = torch.stack([logits_along(POLICY, completion) for completion in completions])
    sft = torch.stack([logits_along(SFT, completion) for completion in completions])
    return kl_of_completions(policy, sft, tokens, torch.ones_like(tokens, dtype=torch.bool), temperature=TEMPERATURE)


ALL = [list(completion) for completion in itertools.product([0, 1], repeat=LENGTH)]


def test_both_estimators_have_the_enumerated_kl_as_their_mean():
    weights = torch.tensor([probability(POLICY, completion) for completion in ALL], dtype=torch.float64)
    exact = sum(
        probability(POLICY, completion) * math.log(probability(POLICY, completion) / probability(SFT, completion))
        for completion in ALL
    )

    k1, rb = kl(ALL)

    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-6)
    assert float(weights @ k1) == pytest.approx(exact, rel=1e-5)
    assert float(weights @ rb) == pytest.approx(exact, rel=1e-5)


def test_rao_blackwell_spreads_less_than_the_plain_estimate_and_sampled_means_approach_each_other():
    weights = torch.tensor([probability(POLICY, completion) for completion in ALL])
    drawn = torch.multinomial(weights, 20_000, replacement=True, generator=torch.Generator().manual_seed(0))

    k1, rb = (estimate[drawn] for estimate in kl(ALL))

    assert float(rb.var()) < 0.2 * float(k1.var())
    assert float(k1.mean()) == pytest.approx(float(rb.mean()), abs=4 * float(k1.std()) / math.sqrt(len(drawn)))


def test_positions_outside_of_a_completion_count_nothing_whatever_they_hold():
    policy, sft = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1)).repeat(2, 1, 1, 1)
    sft = sft + 0.5 * torch.arange(5.0)
    policy[1, 2:], sft[1, 2:] = math.nan, math.inf
    tokens = torch.tensor([[1, 2, 3, 4], [4, 3, 0, 0]])
    inside = torch.tensor([[True] * 4, [True, True, False, False]])

    k1, rb = kl_of_completions(policy, sft, tokens, inside, temperature=1.0)

    alone = kl_of_completions(policy[1:, :2], sft[1:, :2], tokens[1:, :2], inside[1:, :2], temperature=1.0)
    assert float(k1[1]) == pytest.approx(float(alone[0]), abs=1e-9)
    assert float(rb[1]) == pytest.approx(float(alone[1]), abs=1e-9)


def test_chunks_of_the_vocabulary_change_nothing(monkeypatch):
    at_once = kl(ALL)
    monkeypatch.setattr(completion_kl, "CHUNK_NUMBERS", 2 * 5)  # five positions at a time

    in_chunks = kl(ALL)

    assert torch.equal(torch.stack(in_chunks), torch.stack(at_once))


def test_equal_policies_have_no_kl_even_where_a_token_is_impossible():
    logits = torch.tensor([[[0.0, -math.inf, 1.0]]])

    k1, rb = kl_of_completions(logits, logits, torch.tensor([[2]]), torch.tensor([[True]]), temperature=0.9)

    assert (float(k1), float(rb)) == (0.0, 0.0)


def test_a_token_that_only_the_policy_can_produce_is_infinitely_far():
    policy, sft = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[0.0, -math.inf]]])

    _, rb = kl_of_completions(policy, sft, torch.tensor([[0]]), torch.tensor([[True]]), temperature=1.0)

    assert float(rb) == math.inf
