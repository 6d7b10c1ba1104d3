"""How much a policy repeats itself: the mean Jaccard similarity of word bigrams between its completions for different prompts.

Across-input diversity in the sense of arXiv 2310.06452, measured by n-gram overlap as self-BLEU does (arXiv 1802.01886) but
with the symmetric resemblance of two sets, |A and B| / |A or B| (Broder 1997): 0, nothing is shared; 1, all the same.
A policy that collapses onto a few phrases that its reward likes rises towards 1.

Every prompt's first completion meets those of `NUM_NEIGHBOURS` others, the same pairs of prompts for all points. It is computed
from the texts that every evaluated point keeps, when a report is made: nothing that is cached depends on it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NUM_NEIGHBOURS = 8
"""Before and after each prompt, as the prompts lie on a circle (they are ordered by their hashes)."""
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]")
"""A word, a mark, or one character of a script that puts no spaces between words."""


def bigrams(text: str) -> frozenset[tuple[str, str]]:
    """Pairs of neighbouring words, with one for the beginning and one for the end; an empty text has one pair."""
    words = ["", *_WORD.findall(text.casefold()), ""]
    return frozenset(itertools.pairwise(words))


def similarity(first: frozenset[tuple[str, str]], second: frozenset[tuple[str, str]]) -> float:
    """Jaccard similarity of two sets that are not empty."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


def self_similarity(texts: Sequence[str]) -> Floats:
    """Per prompt (N): a number whose mean over prompts is the mean similarity of all pairs that meet; 0 for one prompt.

    `texts`: one completion a prompt (N). The numbers are twice a prompt's own mean minus the mean of all: a pair belongs to
    two prompts, and a bootstrap over prompts of the plain means would give intervals half as wide as they are.
    """
    count = len(texts)
    offsets = range(1, min(NUM_NEIGHBOURS, (count - 1) // 2 or count - 1) + 1)
    if not offsets:
        return np.zeros(count)
    sets = [bigrams(text) for text in texts]
    totals = np.zeros(count)
    for offset in offsets:
        ahead = np.array([similarity(sets[place], sets[(place + offset) % count]) for place in range(count)])
        totals += ahead + np.roll(ahead, offset)
    means = totals / (2 * len(offsets))
    result: Floats = 2.0 * means - means.mean()
    return result
