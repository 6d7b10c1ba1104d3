"""Small model folders, made of bytes alone: sound by default, broken where a test says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def safetensors(tensors: Mapping[str, int], *, fill: int = 1, header: Mapping[str, Any] | None = None) -> bytes:
    """A safetensors file of one-dimensional F32 tensors, by name and length; `header` replaces entries of the header."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, length in tensors.items():
        entries[name] = {"dtype": "F32", "shape": [length], "data_offsets": [position, position + 4 * length]}
        position += 4 * length
    text = json.dumps({**entries, **(header or {})}).encode()
    return len(text).to_bytes(8, "little") + text + bytes([fill]) * position


def single_model() -> dict[str, bytes]:
    """Files of a model with one weight file."""
    return {**_words(), "model.safetensors": safetensors({"embed": 8, "norm": 4})}


def sharded_model() -> dict[str, bytes]:
    """Files of a model with two shards and an index."""
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = {"metadata": {"total_size": 48}, "weight_map": {"embed": first, "norm": second}}
    return {
        **_words(),
        first: safetensors({"embed": 8}),
        second: safetensors({"norm": 4}, fill=2),
        "model.safetensors.index.json": json.dumps(index).encode(),
    }


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files below `folder` and return it."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def _words() -> dict[str, bytes]:
    return {
        "config.json": json.dumps({"model_type": "gemma", "architectures": ["GemmaForCausalLM"]}).encode(),
        "generation_config.json": b'{"eos_token_id": 1}',
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}',
        "special_tokens_map.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
    }
