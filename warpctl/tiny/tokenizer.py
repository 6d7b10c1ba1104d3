"""A real tokenizer for the tiny laboratory: one token a word, split at white space, beginning-of-sequence added."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from warpctl.tiny.grammar import BOS, EOS, PAD, UNKNOWN, VOCABULARY

TOKENS = {word: token for token, word in enumerate(VOCABULARY)}
MAX_TOKENS = 64


def make_tokenizer() -> Any:
    """The tokenizer, ready for save_pretrained; AutoTokenizer reads it back."""
    words = Tokenizer(WordLevel(TOKENS, unk_token=UNKNOWN))
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, TOKENS[BOS])])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def tokens_of(text: str) -> list[int]:
    """Tokens of a text of ours, without the beginning of sequence."""
    return [TOKENS[word] for word in text.split()]


def text_of(tokens: list[int]) -> str:
    """The words of some tokens, special tokens left out."""
    return " ".join(VOCABULARY[token] for token in tokens if token >= TOKENS[UNKNOWN])
