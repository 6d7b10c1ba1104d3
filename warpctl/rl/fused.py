"""A leaner forward pass for the plain architectures of small models (Gemma, Llama, Mistral, Qwen2): the same arithmetic as
transformers' in a fraction of the operations. At small sizes the time goes into starting operations, not into doing them.

What it saves: projections with one input are one product, the last layer works on the columns whose logits are wanted only
(of the others it needs keys and values), and a norm is one operation. It agrees with the model to rounding, gradients
included; tests hold it to that for each architecture. Every other model takes transformers' own forward pass.

Shape suffixes: B rows, L tokens, W the last of them whose logits are wanted, V vocabulary, E hidden size, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention

FUSED_ARCHITECTURES = {
    "GemmaForCausalLM": 1.0,
    "LlamaForCausalLM": 0.0,
    "MistralForCausalLM": 0.0,
    "Qwen2ForCausalLM": 0.0,
}
"""Model classes that are known here: what each adds to the weight of a norm (Gemma stores weight - 1)."""
FUSED_PARAMETERS = 50_000_000
"""Above it the arithmetic dominates and fused copies of the weights would cost memory."""


def may_fuse(model: Any, *, capacity: int) -> bool:
    """True if what is written here computes what this model computes on at most `capacity` tokens a row."""
    if type(model).__name__ not in FUSED_ARCHITECTURES or model.dtype != torch.float32 or model.training:
        return False
    if torch.is_autocast_enabled(model.device.type):
        return False
    if sum(parameter.numel() for parameter in model.parameters()) > FUSED_PARAMETERS:
        return False
    config, attention, mlp = model.config, model.model.layers[0].self_attn, model.model.layers[0].mlp
    window = getattr(config, "sliding_window", None)
    return (
        (config.rope_parameters or {}).get("rope_type", "default") == "default"
        and (window is None or not getattr(config, "use_sliding_window", True) or window >= capacity)
        and not getattr(config, "use_bidirectional_attention", None)
        and attention.o_proj.bias is None
        and mlp.gate_proj.bias is None
        and model.lm_head.bias is None
    )


def joined_bias(attention: Any) -> Tensor | None:
    """Bias of the three projections of an attention block in one piece, None where it has none."""
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    return None if projections[0].bias is None else torch.cat([each.bias for each in projections])


def last_logits(
    model: Any, input_BL: Tensor, *, num_wanted: int, mask_BL: Tensor | None, positions_BL: Tensor | None
) -> Tensor:
    """Logits (B, W, V) of the last `num_wanted` columns, differentiable in the model's weights.

    `mask_BL` is 1 on true tokens, None where all are; `positions_BL` their places, None for 0, 1, 2, ... A model that
    `may_fuse`; the same as model(..., logits_to_keep=num_wanted).logits on all columns of true tokens.
    """
    body, config = model.model, model.config
    added, epsilon = FUSED_ARCHITECTURES[type(model).__name__], config.rms_norm_eps
    num_rows, length = input_BL.shape
    first = length - num_wanted
    visible = _visible(mask_BL, length)

    def normed(hidden: Tensor, module: Any) -> Tensor:
        return rms_norm(hidden, hidden.shape[-1:], module.weight + added, epsilon)

    hidden_BLE = body.embed_tokens(input_BL)
    places = torch.arange(length, device=input_BL.device)[None] if positions_BL is None else positions_BL
    cos_BLD, signed_sin_BLD = (each[:, None] for each in _rotation(body, hidden_BLE, places))
    for number, layer in enumerate(body.layers):
        attention, is_last = layer.self_attn, number == len(body.layers) - 1
        half, num_kv = attention.head_dim // 2, config.num_key_value_heads
        weights = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        projected = linear(normed(hidden_BLE, layer.input_layernorm), weights, joined_bias(attention))
        heads = projected.view(num_rows, length, -1, attention.head_dim).transpose(1, 2)
        straight = heads[:, :-num_kv]
        turned = torch.cat([straight[..., half:], straight[..., :half]], dim=-1)
        rotated = torch.addcmul(straight * cos_BLD, turned, signed_sin_BLD)
        query = rotated[:, :-num_kv]
        if is_last:  # nothing later reads the other columns
            query, hidden_BLE = query[:, :, first:], hidden_BLE[:, first:]
        is_cut = is_last and first > 0
        attended = scaled_dot_product_attention(
            query,
            rotated[:, -num_kv:],
            heads[:, -num_kv:],
            attn_mask=visible[:, :, first:] if is_cut else (None if mask_BL is None else visible),
            is_causal=mask_BL is None and not is_cut,
            scale=attention.scaling,
            enable_gqa=query.shape[1] != num_kv,
        )
        gathered = attended.transpose(1, 2).reshape(num_rows, hidden_BLE.shape[1], -1)
        hidden_BLE = hidden_BLE + linear(gathered, attention.o_proj.weight)
        mlp = layer.mlp
        both = linear(
            normed(hidden_BLE, layer.post_attention_layernorm), torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
        )
        gate, up = both.chunk(2, dim=-1)
        hidden_BLE = hidden_BLE + linear(mlp.act_fn(gate) * up, mlp.down_proj.weight)
    logits_BWV: Tensor = linear(normed(hidden_BLE, body.norm), model.lm_head.weight)
    return logits_BWV


def _visible(mask_BL: Tensor | None, length: int) -> Tensor:
    """True where a query (second but last axis) may look: itself and what stands before it, padding left out.

    A padding column sees itself: a softmax over nothing would be NaN, which a product with 0 does not take back.
    """
    if mask_BL is None:
        return torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    causal_LL = torch.ones(length, length, dtype=torch.bool, device=mask_BL.device).tril()
    itself_LL = torch.eye(length, dtype=torch.bool, device=mask_BL.device)
    return ((causal_LL & mask_BL.bool()[:, None, :]) | itself_LL)[:, None]


def _rotation(body: Any, hidden_BLE: Tensor, places_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding; rotate_half(x) = (-x2, x1), and the sign goes into the sine."""
    cos_BLD, sin_BLD = body.rotary_emb(hidden_BLE, places_BL)
    half = cos_BLD.shape[-1] // 2
    return cos_BLD, torch.cat([-sin_BLD[..., :half], sin_BLD[..., half:]], dim=-1)
