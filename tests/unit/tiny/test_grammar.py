"""The tiny laboratory's words, grammar and ground truth: what they are worth is worked out by hand."""

from __future__ import annotations

import random

import pytest

from warpctl.tiny.grammar import MAX_COMPLETION_TOKENS, VOCABULARY, Topic, all_topics, legal_bigrams, write_review
from warpctl.tiny.ground_truth import SFT_MEAN, SFT_SD, raw_value, score

PROMPT = "write a review of this new lamp about sound :"


def test_there_are_159_words_and_none_twice():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 159


def test_prompts_are_ten_known_words_and_read_back():
    topics = all_topics()

    assert len({topic.prompt for topic in topics}) == 3840
    for topic in topics[::97]:
        assert len(topic.prompt.split()) == 10
        assert set(topic.prompt.split()) < set(VOCABULARY)
        assert Topic.of(topic.prompt) == topic


@pytest.mark.parametrize("text", ["", "hello there", "write a review of this new lamp about love :"])
def test_other_texts_are_no_topics(text):
    assert Topic.of(text) is None


def test_what_the_grammar_writes_is_legal_and_fits():
    """About 16 tokens, 32 at most with the end, every bigram legal, every word known."""
    dice = random.Random(0)
    topics = all_topics()
    reviews = [write_review(dice.choice(topics), dice).split() for _ in range(500)]

    assert max(map(len, reviews)) < MAX_COMPLETION_TOKENS
    assert 12 < sum(map(len, reviews)) / 500 < 17
    for words in reviews:
        assert set(words) <= set(VOCABULARY)
        assert all(pair in legal_bigrams() for pair in zip(["", *words], words, strict=False))


def test_most_pairs_of_words_are_illegal():
    assert ("the", "is") not in legal_bigrams()
    assert (".", "the") in legal_bigrams()
    assert len(legal_bigrams()) < 0.1 * 159**2


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("", 0.0),
        ("the sound is great .", 0.5),  # the prompt's aspect
        ("the sound of this lamp is great .", 1.0),  # and its product
        ("i like the sound because of its bass .", 0.5 + 1.0),  # with a detail of its own
        ("i like the sound because of its red .", 0.5 + 0.7),  # with a detail of another aspect
        ("the sound is great . the sound is great .", 0.5 - 2 * 0.7),  # sound and great are repeated
        ("the is great .", -0.8),  # "the is" is illegal, "is great" is not
    ],
)
def test_values_are_worked_out_by_hand(completion, value):
    assert raw_value(PROMPT, completion) == pytest.approx(value)


def test_words_beyond_the_free_ones_cost():
    """19 words, three beyond the free sixteen; every other part is the same as without the last sentence."""
    short = "i would never use it again . we like it for the money ."
    long = "i would never use it again . we like it for the money . it was"

    assert len(long.split()) - len(short.split()) == 2
    filler = "overall , i would recommend it . " + short
    assert raw_value(PROMPT, filler) == pytest.approx(-0.08 * (len(filler.split()) - 16))


def test_special_tokens_and_spaces_do_not_count():
    assert raw_value(f"<bos> {PROMPT}", "  the sound is great . <eos>") == raw_value(PROMPT, "the sound is great .")


def test_scores_are_standardised_values():
    assert score([PROMPT], ["the sound is great ."]) == [pytest.approx((0.5 - SFT_MEAN) / SFT_SD)]
