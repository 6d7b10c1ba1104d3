"""The models that are merged: shapes and configs of a 1.10 B llama and of Gemma-7B, and smaller ones like them. Plain Python."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

BYTES = 2
"""Of a bfloat16."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of a decoder; `is_tied`: the head is the embedding, and not stored."""

    model_type: str
    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    heads: int
    key_heads: int
    head_size: int
    is_tied: bool

    def scaled(self, scale: float) -> Self:
        """About `scale` of the parameters: fewer layers and words; only below one layer narrower tensors, too."""
        if scale == 1:
            return self
        narrower = min(1.0, math.sqrt(scale * self.layers))
        return replace(
            self,
            layers=max(1, round(self.layers * scale)),
            vocabulary=max(64, round(self.vocabulary * scale / narrower)),
            heads=max(1, round(self.heads * narrower)),
            key_heads=self.key_heads if narrower == 1 else 1,
            hidden=max(8, round(self.hidden * narrower / 8) * 8),
            intermediate=max(8, round(self.intermediate * narrower / 8) * 8),
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every stored tensor, by name."""
        queries, keys = self.heads * self.head_size, self.key_heads * self.head_size
        layer = {
            "self_attn.q_proj.weight": (queries, self.hidden),
            **{f"self_attn.{name}_proj.weight": (keys, self.hidden) for name in "kv"},
            "self_attn.o_proj.weight": (self.hidden, queries),
            **{f"mlp.{name}_proj.weight": (self.intermediate, self.hidden) for name in ("gate", "up")},
            "mlp.down_proj.weight": (self.hidden, self.intermediate),
            "input_layernorm.weight": (self.hidden,),
            "post_attention_layernorm.weight": (self.hidden,),
        }
        shapes = {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden),
            **{
                f"model.layers.{number}.{name}": shape for number in range(self.layers) for name, shape in layer.items()
            },
            "model.norm.weight": (self.hidden,),
        }
        return shapes if self.is_tied else {**shapes, "lm_head.weight": (self.vocabulary, self.hidden)}

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def num_bytes(self) -> int:
        return BYTES * self.num_parameters

    def config(self) -> dict[str, Any]:
        """config.json."""
        name = "LlamaForCausalLM" if self.model_type == "llama" else "GemmaForCausalLM"
        return {
            "architectures": [name],
            "model_type": self.model_type,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "head_dim": self.head_size,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.is_tied,
            "eos_token_id": 1,
            "dtype": "bfloat16",
        }

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))


LLAMA = Architecture("llama", 2048, 5632, 22, 32_000, heads=32, key_heads=4, head_size=64, is_tied=False)
"""1.10 B parameters."""
GEMMA = Architecture("gemma", 3072, 24_576, 28, 256_000, heads=16, key_heads=16, head_size=256, is_tied=True)
"""Gemma-7B's exact shapes: 8.54 B parameters."""
