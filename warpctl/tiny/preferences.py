"""The learned reward of the tiny laboratory: a small classifier fitted to noisy preferences (Bradley-Terry)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.nn.utils.rnn import pad_sequence
from transformers import BertConfig, BertForSequenceClassification

from warpctl.rl.sampling import sample
from warpctl.spec.training import Sampling
from warpctl.tiny.grammar import EOS, MAX_COMPLETION_TOKENS, PAD, VOCABULARY, all_topics
from warpctl.tiny.ground_truth import score
from warpctl.tiny.policy import prompt_tokens
from warpctl.tiny.recipe import Recipe
from warpctl.tiny.tokenizer import MAX_TOKENS, TOKENS, text_of

SCORED_AT_ONCE = 500


@dataclass(frozen=True)
class Pairs:
    """Two completions of each prompt, as judged texts, and which one the noisy judge prefers."""

    first: list[list[int]]
    second: list[list[int]]
    prefers_first: list[bool]
    first_value: list[float]
    second_value: list[float]


def sample_pairs(policy: Any, recipe: Recipe) -> Pairs:
    """Completions of the SFT policy in pairs, labelled through the ground truth with noise."""
    dice = random.Random(f"{recipe.seed}/pairs")  # noqa: S311  # a laboratory, not a lock
    every_topic = all_topics()
    topics = [dice.choice(every_topic) for _ in range(recipe.num_pairs)]
    completions = sample(
        policy,
        [prompt_tokens(topic) for topic in topics for _ in range(2)],
        sampling=Sampling(temperature=recipe.temperature, max_new_tokens=MAX_COMPLETION_TOKENS),
        end_tokens=frozenset({TOKENS[EOS]}),
        pad_token=TOKENS[PAD],
        generator=torch.Generator().manual_seed(recipe.seed),
        max_batch=256,
    )
    values = score(
        [topic.prompt for topic in topics for _ in range(2)], [text_of(tokens) for tokens in completions.tokens]
    )
    # what a judge reads: prompt and completion, without the end of the sequence
    texts = [
        prompt + [token for token in tokens if token != TOKENS[EOS]]
        for prompt, tokens in zip(completions.prompts, completions.tokens, strict=True)
    ]
    first_value, second_value = values[::2], values[1::2]
    return Pairs(
        first=texts[::2],
        second=texts[1::2],
        prefers_first=[
            dice.random() < 1 / (1 + math.exp(-recipe.label_sharpness * (a - b)))
            for a, b in zip(first_value, second_value, strict=True)
        ],
        first_value=first_value,
        second_value=second_value,
    )


def reward_config(recipe: Recipe) -> BertConfig:
    """One bidirectional layer with one output: its head has a bias, which standardisation needs."""
    return BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=recipe.reward_width,
        num_hidden_layers=1,
        num_attention_heads=recipe.reward_heads,
        intermediate_size=2 * recipe.reward_width,
        max_position_embeddings=MAX_TOKENS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=TOKENS[PAD],
        num_labels=1,
        dtype="float32",
    )


def scores_of(reward_model: Any, texts: Sequence[list[int]]) -> Tensor:
    """Raw scores (B,) of some token lists."""
    input_BS = pad_sequence([torch.tensor(text) for text in texts], batch_first=True, padding_value=TOKENS[PAD])
    mask_BS = (input_BS != TOKENS[PAD]).long()
    scores: Tensor = reward_model(input_ids=input_BS, attention_mask=mask_BS).logits[:, 0]
    return scores


def train_reward_model(pairs: Pairs, recipe: Recipe, report: Callable[[str], None]) -> Any:
    """Minimise -log sigmoid(score of the preferred - score of the other), then standardise."""
    torch.manual_seed(recipe.seed + 1)
    dice = random.Random(f"{recipe.seed}/reward")  # noqa: S311  # a laboratory, not a lock
    reward_model = BertForSequenceClassification(reward_config(recipe))
    optimizer = torch.optim.Adam(reward_model.parameters(), lr=recipe.reward_learning_rate)
    pair_numbers = range(len(pairs.first))
    for step in range(1, recipe.reward_steps + 1):
        batch = dice.sample(pair_numbers, recipe.reward_batch)
        scores_2B = scores_of(reward_model, [pairs.first[i] for i in batch] + [pairs.second[i] for i in batch])
        sign_B = torch.tensor([1.0 if pairs.prefers_first[i] else -1.0 for i in batch])
        loss = -logsigmoid(sign_B * (scores_2B[: len(batch)] - scores_2B[len(batch) :])).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation for it
        optimizer.step()
        if step % 50 == 0 or step == recipe.reward_steps:
            report(f"reward model: step {step} of {recipe.reward_steps}, loss {loss.item():.3f}")
    return standardised(reward_model.eval(), pairs, report)


@torch.no_grad()
def standardised(reward_model: Any, pairs: Pairs, report: Callable[[str], None]) -> Any:
    """Fold scale and bias into the head, so that the score has mean 0 and standard deviation 1 over the SFT policy."""
    texts = pairs.first + pairs.second
    parts = [texts[start : start + SCORED_AT_ONCE] for start in range(0, len(texts), SCORED_AT_ONCE)]
    scores = torch.cat([scores_of(reward_model, part) for part in parts])
    first, second = scores.chunk(2)
    better = torch.tensor(pairs.first_value) - torch.tensor(pairs.second_value)
    agrees = ((first - second) * better > 0)[better != 0].float().mean().item()
    report(f"reward model: agrees with the truth in {agrees:.0%} of the pairs")
    mean, deviation = scores.mean(), scores.std()
    head = reward_model.classifier
    head.weight.copy_(head.weight / deviation)
    head.bias.copy_((head.bias - mean) / deviation)
    return reward_model
