"""The SFT policy of the tiny laboratory: a Gemma of 0.3 million parameters, really trained on the grammar's reviews."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from transformers import GemmaConfig, GemmaForCausalLM

from warpctl.rl.logprobs import completion_logprobs
from warpctl.tiny.grammar import BOS, EOS, PAD, VOCABULARY, Topic, all_topics, write_review
from warpctl.tiny.recipe import Recipe
from warpctl.tiny.tokenizer import MAX_TOKENS, TOKENS, tokens_of

WARMUP_STEPS = 20
INITIALIZER_RANGE = 0.05
"""Two and a half times the usual, with which 250 steps are too few to learn to copy words from the prompt. Weights twice as
large learn that better still, but then 40 steps of Adam move the policy too little to over-optimise anything."""


def policy_config(recipe: Recipe) -> GemmaConfig:
    """Gemma's architecture with multi-query attention and tied embeddings, small."""
    return GemmaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=recipe.width,
        intermediate_size=2 * recipe.width,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=1,
        head_dim=recipe.width // recipe.num_heads,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=TOKENS[PAD],
        bos_token_id=TOKENS[BOS],
        eos_token_id=TOKENS[EOS],
        tie_word_embeddings=True,
        initializer_range=INITIALIZER_RANGE,
        dtype="float32",
    )


def prompt_tokens(topic: Topic) -> list[int]:
    """The prompt as the policy sees it: eleven tokens."""
    return [TOKENS[BOS], *tokens_of(topic.prompt)]


def train_policy(recipe: Recipe, report: Callable[[str], None]) -> Any:
    """Supervised fine-tuning from scratch on freshly written reviews; the loss is on completions only."""
    torch.manual_seed(recipe.seed)
    dice = random.Random(f"{recipe.seed}/sft")  # noqa: S311  # a laboratory, not a lock
    policy = GemmaForCausalLM(policy_config(recipe))
    optimizer = torch.optim.Adam(policy.parameters(), lr=recipe.sft_learning_rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP_STEPS, max(0.05, 1 - step / recipe.sft_steps))
    )
    topics = all_topics()
    for step in range(1, recipe.sft_steps + 1):
        batch = [dice.choice(topics) for _ in range(recipe.sft_batch)]
        logprobs_BT, in_completion_BT = completion_logprobs(
            policy,
            [prompt_tokens(topic) for topic in batch],
            [[*tokens_of(write_review(topic, dice)), TOKENS[EOS]] for topic in batch],
            temperature=1.0,
            pad_token=TOKENS[PAD],
        )
        loss = -logprobs_BT.sum() / in_completion_BT.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation for it
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == recipe.sft_steps:
            report(f"sft policy: step {step} of {recipe.sft_steps}, loss {loss.item():.3f} nats per token")
    return policy.eval()
