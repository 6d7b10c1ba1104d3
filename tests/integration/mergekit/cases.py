"""The models that mergekit and we both merge, and mergekit's recipes for them. A few thousand parameters each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.builders.checkpoints import model_files, moved, random_weights
from tests.builders.model_folder import write_folder

HIDDEN, INTERMEDIATE, VOCABULARY = 16, 24, 32
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
    "dtype": "float32",
}
LAYER = {
    **{f"self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"},
    **{f"mlp.{name}_proj.weight": (INTERMEDIATE, HIDDEN) for name in ("gate", "up")},
    "mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
    "input_layernorm.weight": (HIDDEN,),
    "post_attention_layernorm.weight": (HIDDEN,),
}
SHAPES = {
    "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
    **{f"model.layers.{layer}.{name}": shape for layer in range(3) for name, shape in LAYER.items()},
    "model.norm.weight": (HIDDEN,),
    "lm_head.weight": (VOCABULARY, HIDDEN),
}
NORM, HEAD, EMBEDDING = "model.norm.weight", "lm_head.weight", "model.embed_tokens.weight"
INIT = random_weights(0, shapes=SHAPES)
ONE, TWO, THREE = moved(INIT, 1, scale=0.1), moved(INIT, 2, scale=0.15), moved(INIT, 3, scale=0.1)


def _nearly_opposite() -> np.ndarray:
    """Twice as long as member 1's task vector of the final norm, and 0.05 degrees short of antiparallel."""
    step = ONE[NORM] - INIT[NORM]
    tilted = -2 * step
    tilted[0] += 1e-3
    return INIT[NORM] + tilted


ODD = {
    **TWO,
    NORM: np.zeros_like(ONE[NORM]),
    HEAD: moved(ONE, 4, scale=0.03)[HEAD],
    EMBEDDING: -moved(ONE, 5, scale=0.02)[EMBEDDING],
}
"""Beside member 1: a zero tensor, one at 1.7 degrees, and one 1.1 degrees short of antiparallel."""

MODELS: dict[str, tuple[Mapping[str, np.ndarray], str]] = {
    "init": (INIT, "F32"),
    "one": (ONE, "F32"),
    "two": (TWO, "F32"),
    "three": (THREE, "F32"),
    "init-bf16": (INIT, "BF16"),
    "one-bf16": (ONE, "BF16"),
    "two-bf16": (TWO, "BF16"),
    "one-frozen": ({**ONE, NORM: INIT[NORM]}, "F32"),
    "odd": (ODD, "F32"),
    "two-opposite": ({**TWO, NORM: _nearly_opposite()}, "F32"),
}
"""Weights and stored type by name."""

MERGES = {
    "plain": ("init", "one", "two"),
    "bf16": ("init-bf16", "one-bf16", "two-bf16"),
    "zero": ("init", "one-frozen", "two"),
    "opposite": ("init", "one", "two-opposite"),
    "triple": ("init", "one", "two", "three"),
}
"""Init and members of each merge."""

AVERAGES = {
    "average": ({"one": 2, "two": 1, "three": 0.5}, "float32"),
    "average-mixed": ({"init-bf16": 1, "one": 1, "two-bf16": 1, "three": 3}, "float32"),
}
"""Models with their weights, and the type of each weighted average."""

SLERPS: dict[str, dict[str, Any]] = {
    "slerp": {"base": "one", "parameters": {"t": 0.3}, "models": {"two": None}},
    "slerp-at-0": {"base": "two", "parameters": {"t": 0}, "models": {"one": None, "two": None}},
    "slerp-at-1": {"base": "two", "parameters": {"t": 1}, "models": {"one": None, "two": None}},
    "slerp-bf16": {"base": "one-bf16", "parameters": {"t": 0.7}, "models": {"two-bf16": None}, "dtype": "bfloat16"},
    "slerp-rules": {
        "base": "one",
        "models": {"one": None, "two": None},
        "parameters": {
            "t": [
                {"filter": "self_attn", "value": [0, 0.5, 0.3]},
                {"filter": "mlp", "value": [1, 0.25]},
                {"filter": "norm", "value": 0.9},
                {"value": [0.125, 0.5]},
            ]
        },
        "slices": [0, 3],
    },
    "slerp-odd": {"base": "one", "models": {"odd": None}, "parameters": {"t": 0.25}},
    "nuslerp-uneven": {"base": "init", "models": {"one": 0.2, "two": 0.6}},
    "nuslerp-of-one": {"base": "init", "models": {"one": 0, "init": 5, "two": 1}},
    "nuslerp-weights": {"models": {"one": 3, "two": 1}},
}
"""SLERP of two: base model (the first at 0), models with their weights, and what else is not as usual."""


def files(name: str) -> dict[str, bytes]:
    """The model's folder."""
    weights, dtype = MODELS[name]
    return {**model_files(weights, dtype=dtype), "config.json": json.dumps(CONFIG).encode()}


def write_cases(folder: Path) -> None:
    """All models, and a recipe for each merge; "zz-liti" is the linear merge of init and the result of "plain"."""
    for case, (names, dtype) in AVERAGES.items():
        weights = [{"model": str(folder / "models" / name), "parameters": {"weight": w}} for name, w in names.items()]
        recipe = {"merge_method": "linear", "models": weights, "dtype": dtype}
        (folder / f"{case}.json").write_text(json.dumps(recipe))
    for name in MODELS:
        write_folder(folder / "models" / name, files(name))
    for case, (init, *members) in MERGES.items():
        models = [{"model": str(folder / "models" / name), "parameters": {"weight": 0.5}} for name in members]
        base = str(folder / "models" / init)
        recipe = {"merge_method": "nuslerp", "base_model": base, "models": models, "dtype": "float32"}
        (folder / f"{case}.json").write_text(json.dumps(recipe))
    for case, asked in SLERPS.items():
        (folder / f"{case}.json").write_text(json.dumps(_slerp_recipe(folder, **asked)))
    parts = {folder / "models" / "init": 0.7, folder / "plain": 0.3}
    models = [{"model": str(path), "parameters": {"weight": weight}} for path, weight in parts.items()]
    recipe = {"merge_method": "linear", "models": models, "dtype": "float32"}
    (folder / "zz-liti.json").write_text(json.dumps(recipe))


def _slerp_recipe(
    folder: Path,
    *,
    models: Mapping[str, float | None],
    base: str = "",
    parameters: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    slices: list[int] | None = None,
) -> dict[str, Any]:
    sources = [
        {"model": str(folder / "models" / name), **({} if weight is None else {"parameters": {"weight": weight}})}
        for name, weight in models.items()
    ]
    if slices:
        what: dict[str, Any] = {"slices": [{"sources": [{**source, "layer_range": slices} for source in sources]}]}
    else:
        what = {"models": sources}
    if base:
        what["base_model"] = str(folder / "models" / base)
    if parameters:
        what["parameters"] = parameters
    return {"merge_method": "slerp" if parameters else "nuslerp", **what, "dtype": dtype}
