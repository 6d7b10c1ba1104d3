"""Models of a few thousand random weights in the architectures that people align, for parity with transformers."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
)

VOCABULARY = 37
_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "gemma": GemmaConfig(**{**_SMALL, "num_key_value_heads": 1}, head_dim=8),
    "gemma2": Gemma2Config(**_SMALL, head_dim=8, sliding_window=8, query_pre_attn_scalar=8),
    "llama": LlamaConfig(**_SMALL, tie_word_embeddings=False),
    "qwen2": Qwen2Config(**_SMALL),
    "mistral": MistralConfig(**_SMALL, sliding_window=None),
    "mistral-window": MistralConfig(**_SMALL, sliding_window=6),
}
FUSED = ("gemma", "llama", "qwen2", "mistral")
"""Those that the fused decoder takes."""


def make_model(name: str, *, seed: int = 0) -> Any:
    """The model in eval mode; norms, biases and embeddings are random too, so that none of them can be forgotten."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name or "bias" in parameter_name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model
