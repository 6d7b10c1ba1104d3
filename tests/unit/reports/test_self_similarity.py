"""Self-similarity worked out by hand, its bounds, and that its intervals are not too narrow."""

import itertools

import numpy as np
import pytest

from warpctl.reports.self_similarity import bigrams, self_similarity, similarity


def test_bigrams_know_the_beginning_and_the_end_and_no_case():
    assert bigrams("The cat.") == {("", "the"), ("the", "cat"), ("cat", "."), (".", "")}
    assert bigrams("") == {("", "")}
    assert len(bigrams("\u4f60\u597d\u5417")) == 4  # a character is a word where no spaces are


def test_similarity_is_the_shared_part_of_both():
    assert similarity(bigrams("a b c"), bigrams("a b d")) == 2 / 6
    assert similarity(bigrams("a"), bigrams("b")) == 0.0
    assert similarity(bigrams("a b"), bigrams("A B")) == 1.0


def test_the_mean_is_that_of_all_pairs_where_all_meet():
    texts = ["a b c", "a b d", "x y", "a b c", "", "b c", "a"]

    pairs = [similarity(bigrams(one), bigrams(other)) for one, other in itertools.combinations(texts, 2)]

    assert self_similarity(texts).mean() == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_equal_texts_are_all_alike_and_different_ones_are_not(count):
    alike, different = self_similarity(["same"] * count), self_similarity([f"word{n}" for n in range(count)])

    assert alike.tolist() == pytest.approx([float(count > 1)] * count)
    assert different.tolist() == [0.0] * count


def test_the_spread_over_prompts_is_that_of_the_mean_over_new_prompts():
    """A share of stock phrases: the mean over fresh draws varies as the numbers of one draw say, or a little less."""
    generator = np.random.default_rng(0)
    draws = [
        self_similarity(["stock" if generator.random() < 0.3 else f"own {number}" for number in range(100)])
        for _ in range(300)
    ]

    true = np.std([draw.mean() for draw in draws])
    said = np.mean([draw.std() / 10 for draw in draws])
    assert 0.9 < said / true < 1.5
