"""The words of the tiny laboratory and the probabilistic grammar that writes its product reviews.

A symbol in capitals is a nonterminal of GRAMMAR, except four that depend on the prompt:
PRODUCT, ASPECT, TRAIT (mostly the prompt's own, sometimes any other) and DETAIL (mostly of the prompt's aspect).
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from functools import cache
from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
SPECIAL_TOKENS: Final = (PAD, BOS, EOS, UNKNOWN)

PRODUCTS: Final = _words(
    "lamp kettle phone laptop camera chair desk tent jacket backpack blender toaster speaker headset keyboard mouse "
    "monitor printer watch bike drone fan heater mixer"
)
TRAITS: Final = _words("new cheap small old light modern black white compact sturdy")
DETAILS_OF: Final = {
    "battery": ("hours", "charge"),
    "screen": ("pixels", "contrast"),
    "sound": ("bass", "treble"),
    "price": ("euros", "discount"),
    "size": ("centimetres", "shelf"),
    "weight": ("grams", "scale"),
    "colour": ("red", "matte"),
    "design": ("curves", "edges"),
    "comfort": ("padding", "straps"),
    "speed": ("seconds", "motor"),
    "handle": ("grip", "rubber"),
    "cable": ("metres", "plug"),
    "noise": ("decibels", "hum"),
    "quality": ("steel", "seams"),
    "warranty": ("years", "receipt"),
    "packaging": ("carton", "foam"),
}
ASPECTS: Final = tuple(DETAILS_OF)
DETAILS: Final = tuple(itertools.chain.from_iterable(DETAILS_OF.values()))
PRAISE: Final = _words(
    "great good excellent superb fine lovely solid pleasant impressive reliable perfect decent amazing clever"
)
BLAME: Final = _words("bad poor awful weak ugly terrible dull broken")
PLAIN_WORDS: Final = _words(
    "write a review of this about : the is was and but with it i we has my very really quite so . , for in me its too "
    "feels looks works love like hate bought use recommend overall honestly after two three weeks days because never "
    "always again would money"
)
CONTENT_WORDS: Final = frozenset((*PRODUCTS, *TRAITS, *ASPECTS, *DETAILS, *PRAISE, *BLAME))
VOCABULARY: Final = (*SPECIAL_TOKENS, *PLAIN_WORDS, *PRODUCTS, *TRAITS, *ASPECTS, *DETAILS, *PRAISE, *BLAME)
"""All 159 words; a word's index is its token."""

MAX_COMPLETION_TOKENS: Final = 32

OPEN_SYMBOLS: Final = {"PRODUCT": PRODUCTS, "ASPECT": ASPECTS, "TRAIT": TRAITS, "DETAIL": DETAILS}
GRAMMAR: Final[dict[str, tuple[tuple[float, str], ...]]] = {
    "REVIEW": ((3.0, "SENTENCE"), (5.0, "SENTENCE SENTENCE"), (2.0, "SENTENCE SENTENCE SENTENCE")),
    "SENTENCE": ((5.0, "ON_ASPECT ."), (3.0, "ON_PRODUCT ."), (3.0, "FILLER .")),
    "ON_ASPECT": (
        (3.0, "the ASPECT is OPINION"),
        (2.0, "the ASPECT of this PRODUCT is OPINION"),
        (2.0, "its ASPECT feels QUALIFIED and QUALIFIED"),
        (2.0, "i like the ASPECT because of its DETAIL"),
        (1.5, "it has a QUALIFIED ASPECT with DETAIL and DETAIL"),
        (1.0, "the ASPECT looks OPINION but its DETAIL is too BLAME"),
    ),
    "ON_PRODUCT": (
        (2.0, "i FEEL this TRAIT PRODUCT"),
        (2.0, "we bought this PRODUCT TIME"),
        (1.0, "this PRODUCT works for me"),
        (1.0, "my TRAIT PRODUCT was OPINION"),
    ),
    "FILLER": (
        (2.0, "honestly , it is OPINION"),
        (2.0, "overall , i would recommend it"),
        (1.0, "i would never use it again"),
        (1.0, "so it was always in use"),
        (1.0, "we like it for the money"),
    ),
    "TIME": ((1.0, "after two weeks"), (1.0, "after three days"), (1.0, "for the money")),
    "FEEL": ((2.0, "love"), (2.0, "like"), (1.0, "hate")),
    "OPINION": ((3.0, "ADVERB QUALIFIED"), (2.0, "QUALIFIED")),
    "ADVERB": ((2.0, "very"), (2.0, "really"), (1.0, "quite"), (1.0, "so"), (1.0, "too")),
    "QUALIFIED": ((5.0, "PRAISE"), (2.0, "BLAME")),
    "PRAISE": tuple((1.0, word) for word in PRAISE),
    "BLAME": tuple((1.0, word) for word in BLAME),
}
OWN_ASPECT, OWN_PRODUCT, OWN_TRAIT, OWN_DETAIL = 0.6, 0.7, 0.6, 0.5
"""How often a review sticks to its prompt: what reinforcement learning can improve upon."""


@dataclass(frozen=True)
class Topic:
    """What a prompt asks about."""

    product: str
    trait: str
    aspect: str

    @property
    def prompt(self) -> str:
        """The prompt's text: ten words, eleven tokens with the beginning-of-sequence token."""
        return f"write a review of this {self.trait} {self.product} about {self.aspect} :"

    @classmethod
    def of(cls, prompt: str) -> Topic | None:
        """Read a prompt back; None if it is not one of ours."""
        words = [word for word in prompt.split() if word not in SPECIAL_TOKENS]
        if len(words) < 9 or words[6] not in PRODUCTS or words[5] not in TRAITS or words[8] not in ASPECTS:
            return None
        return cls(product=words[6], trait=words[5], aspect=words[8])


def all_topics() -> list[Topic]:
    """Every prompt there is, in a fixed order."""
    return [Topic(*words) for words in itertools.product(PRODUCTS, TRAITS, ASPECTS)]


def _write(symbol: str, topic: Topic, dice: random.Random) -> list[str]:
    if symbol == "PRODUCT":
        return [topic.product if dice.random() < OWN_PRODUCT else dice.choice(PRODUCTS)]
    if symbol == "ASPECT":
        return [topic.aspect if dice.random() < OWN_ASPECT else dice.choice(ASPECTS)]
    if symbol == "TRAIT":
        return [topic.trait if dice.random() < OWN_TRAIT else dice.choice(TRAITS)]
    if symbol == "DETAIL":
        return [dice.choice(DETAILS_OF[topic.aspect] if dice.random() < OWN_DETAIL else DETAILS)]
    if symbol not in GRAMMAR:
        return [symbol]
    rules = GRAMMAR[symbol]
    (_, symbols), *_ = dice.choices(rules, weights=[weight for weight, _ in rules])
    return [word for part in symbols.split() for word in _write(part, topic, dice)]


def write_review(topic: Topic, dice: random.Random) -> str:
    """One review of `topic`, at most 31 words, so that with its end it fits 32 tokens."""
    while True:
        words = _write("REVIEW", topic, dice)
        if len(words) < MAX_COMPLETION_TOKENS:
            return " ".join(words)


@cache
def _edge_words(symbol: str, edge: int) -> frozenset[str]:
    """Words that a symbol can begin with (edge 0) or end with (edge -1)."""
    if symbol in OPEN_SYMBOLS:
        return frozenset(OPEN_SYMBOLS[symbol])
    if symbol not in GRAMMAR:
        return frozenset((symbol,))
    return frozenset().union(*(_edge_words(symbols.split()[edge], edge) for _, symbols in GRAMMAR[symbol]))


@cache
def legal_bigrams() -> frozenset[tuple[str, str]]:
    """Every pair of neighbouring words that the grammar can write; ("", w) is a legal beginning."""
    pairs = {("", word) for word in _edge_words("REVIEW", 0)}
    for rules in GRAMMAR.values():
        for _, symbols in rules:
            for left, right in itertools.pairwise(symbols.split()):
                pairs.update(itertools.product(_edge_words(left, -1), _edge_words(right, 0)))
    return frozenset(pairs)
