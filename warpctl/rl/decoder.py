"""One token at a time through a causal language model, keys and values kept: what sampling stands on.

Shape suffixes: A rows that are alive, S prompt tokens, L tokens in the cache, V vocabulary, E hidden size,
H query heads, K key-value heads, G = H / K, D head size.

TransformersDecoder works for every model. FusedDecoder does the same arithmetic for the plain architectures of small
models (Gemma, Llama, Mistral, Qwen2) with a quarter of the operations: at small sizes the time goes into starting
operations, not into doing them. It agrees with the model to rounding; tests hold it to that for each architecture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from warpctl.rl.fused import FUSED_ARCHITECTURES, joined_bias, may_fuse


class Decoder(Protocol):
    """Next-token logits of a batch that shrinks as rows end."""

    def prefill(self, input_AS: Tensor, mask_AS: Tensor | None) -> Tensor:
        """Read the prompts, padded on the left; the logits (A, V) of the first completion token."""

    def step(self, tokens_A: Tensor) -> Tensor:
        """Append one token to each row; the logits (A, V) of the next."""

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows of the batch."""


class ReservedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """One layer's keys and values in memory reserved for the whole completion: growing it copies nothing."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (A, K, new, D) states; returns views of all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.key_store = key_states.new_empty((*key_states.shape[:-2], self.capacity, key_states.shape[-1]))
            self.value_store = value_states.new_empty((*value_states.shape[:-2], self.capacity, value_states.shape[-1]))
        end = self.length + key_states.shape[-2]
        self.key_store[:, :, self.length : end] = key_states
        self.value_store[:, :, self.length : end] = value_states
        self.length = end
        self.keys, self.values = self.key_store[:, :, :end], self.value_store[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows."""
        self.key_store, self.value_store = self.key_store[indices], self.value_store[indices]
        self.keys, self.values = self.key_store[:, :, : self.length], self.value_store[:, :, : self.length]


class TransformersDecoder:
    """The model's own forward pass. Layers that are not plain attention keep transformers' own cache."""

    def __init__(self, model: Any, *, capacity: int) -> None:
        self.model = model
        self.cache = DynamicCache(config=model.config)
        self.cache.layers = [
            ReservedLayer(capacity) if type(layer) is DynamicLayer else layer for layer in self.cache.layers
        ]
        self.mask_AL: Tensor | None = None
        self.positions_A: Tensor | None = None

    def prefill(self, input_AS: Tensor, mask_AS: Tensor | None) -> Tensor:
        positions = None
        if mask_AS is not None:
            self.mask_AL = mask_AS
            self.positions_A = mask_AS.sum(dim=1)
            positions = (mask_AS.cumsum(dim=1) - 1).clamp(min=0)
        return self._forward(input_AS, positions)

    def step(self, tokens_A: Tensor) -> Tensor:
        positions = None
        if self.mask_AL is not None and self.positions_A is not None:
            self.mask_AL = torch.cat([self.mask_AL, self.mask_AL.new_ones((len(tokens_A), 1))], dim=1)
            positions = self.positions_A[:, None]
            self.positions_A = self.positions_A + 1
        return self._forward(tokens_A[:, None], positions)

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        if self.mask_AL is not None and self.positions_A is not None:
            self.mask_AL, self.positions_A = self.mask_AL[rows], self.positions_A[rows]

    def _forward(self, input_ids: Tensor, position_ids: Tensor | None) -> Tensor:
        output = self.model(
            input_ids=input_ids,
            attention_mask=self.mask_AL,
            position_ids=position_ids,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_AV: Tensor = output.logits[:, -1].float()
        return logits_AV


@dataclass(frozen=True)
class FusedLayer:
    """Weights of one layer, projections with the same input put together."""

    attention_norm_E: Tensor
    query_key_value: Tensor
    query_key_value_bias: Tensor | None
    output: Tensor
    mlp_norm_E: Tensor
    gate_up: Tensor
    down: Tensor
    activation: Any


class FusedDecoder:
    """The model's own prefill, then a leaner step. See fused.may_fuse for which models."""

    def __init__(self, model: Any, *, capacity: int) -> None:
        self.prompt_decoder = TransformersDecoder(model, capacity=capacity)
        config, body = model.config, model.model
        self.num_kv_heads: int = config.num_key_value_heads
        attention = body.layers[0].self_attn
        self.head_size: int = attention.head_dim
        self.num_query_heads: int = attention.q_proj.weight.shape[0] // self.head_size
        self.scaling: float = attention.scaling
        added = FUSED_ARCHITECTURES[type(model).__name__]
        width: int = body.embed_tokens.weight.shape[1]
        # x / sqrt(mean(x^2) + eps) = sqrt(E) x / sqrt(|x|^2 + E eps): one norm instead of four operations
        self.norm_floor = torch.tensor(math.sqrt(width * config.rms_norm_eps), device=model.device)

        def norm(module: Any) -> Tensor:
            weight_E: Tensor = (module.weight.detach().float() + added) * math.sqrt(width)
            return weight_E

        def joined(*modules: Any) -> Tensor:
            return torch.cat([module.weight for module in modules])

        self.layers = [
            FusedLayer(
                attention_norm_E=norm(layer.input_layernorm),
                query_key_value=joined(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                query_key_value_bias=joined_bias(layer.self_attn),
                output=layer.self_attn.o_proj.weight.t(),
                mlp_norm_E=norm(layer.post_attention_layernorm),
                gate_up=joined(layer.mlp.gate_proj, layer.mlp.up_proj),
                down=layer.mlp.down_proj.weight.t(),
                activation=layer.mlp.act_fn,
            )
            for layer in body.layers
        ]
        self.final_norm_E = norm(body.norm)
        self.embed = body.embed_tokens  # the module itself: Gemma's scales what it looks up
        self.head: Tensor = model.lm_head.weight
        cos, sin = body.rotary_emb(self.head, torch.arange(capacity, device=model.device)[None])
        half = self.head_size // 2
        self.cos_LD: Tensor = cos[0]
        # rotate_half(x) = (-x2, x1): the sign goes into the sine
        self.signed_sin_LD: Tensor = torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)

    def prefill(self, input_AS: Tensor, mask_AS: Tensor | None) -> Tensor:
        return self.prompt_decoder.prefill(input_AS, mask_AS)

    def keep(self, rows: Tensor) -> None:
        self.prompt_decoder.keep(rows)

    def step(self, tokens_A: Tensor) -> Tensor:
        prompt, num_rows = self.prompt_decoder, len(tokens_A)
        caches = prompt.cache.layers
        place: int = caches[0].length
        visible: Tensor | None = None
        if prompt.mask_AL is not None and prompt.positions_A is not None:
            prompt.mask_AL = torch.cat([prompt.mask_AL, prompt.mask_AL.new_ones((num_rows, 1))], dim=1)
            visible = prompt.mask_AL.bool()[:, None, None, :]
            cos, sin = self.cos_LD[prompt.positions_A][:, None], self.signed_sin_LD[prompt.positions_A][:, None]
            prompt.positions_A = prompt.positions_A + 1
        else:
            cos, sin = self.cos_LD[place], self.signed_sin_LD[place]
        rotated, half = self.num_query_heads + self.num_kv_heads, self.head_size // 2
        hidden_AE = self.embed(tokens_A)
        for layer, cache in zip(self.layers, caches, strict=True):
            projected = linear(
                self._normed(hidden_AE, layer.attention_norm_E), layer.query_key_value, layer.query_key_value_bias
            ).view(num_rows, -1, self.head_size)
            straight = projected[:, :rotated]
            turned = torch.cat([straight[..., half:], straight[..., :half]], dim=-1)
            rotary = torch.addcmul(straight * cos, turned, sin)
            cache.key_store[:, :, place] = rotary[:, self.num_query_heads :]
            cache.value_store[:, :, place] = projected[:, rotated:]
            cache.length = place + 1
            # the G query heads of a key-value head stand where the query tokens would: grouped attention for free
            attended = scaled_dot_product_attention(
                rotary[:, : self.num_query_heads].view(num_rows, self.num_kv_heads, -1, self.head_size),
                cache.key_store[:, :, : place + 1],
                cache.value_store[:, :, : place + 1],
                attn_mask=visible,
                scale=self.scaling,
            )
            hidden_AE = torch.addmm(hidden_AE, attended.reshape(num_rows, -1), layer.output)
            gate, up = linear(self._normed(hidden_AE, layer.mlp_norm_E), layer.gate_up).chunk(2, dim=-1)
            hidden_AE = torch.addmm(hidden_AE, layer.activation(gate) * up, layer.down)
        logits_AV: Tensor = linear(self._normed(hidden_AE, self.final_norm_E), self.head)
        return logits_AV

    def _normed(self, hidden_AE: Tensor, weight_E: Tensor) -> Tensor:
        length_A = torch.linalg.vector_norm(hidden_AE, dim=-1, keepdim=True)
        return hidden_AE / torch.hypot(length_A, self.norm_floor) * weight_E


def decoder_for(model: Any, *, capacity: int) -> Decoder:
    """The fastest decoder for this model, for at most `capacity` tokens a row, prompt included."""
    if may_fuse(model, capacity=capacity):
        return FusedDecoder(model, capacity=capacity)
    return TransformersDecoder(model, capacity=capacity)
