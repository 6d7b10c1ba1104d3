"""Committed model artifacts of a few hundred parameters, in any dtype and sharding, for tests of what reads weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from warpctl.spec.stage_input import ImportTask, InputArtifact, StageInput, StageKind
from warpctl.storage.bfloat16 import float32_to_bfloat16
from warpctl.storage.file_names import INDEX
from warpctl.storage.headers import DTYPES
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store

SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (13, 6),
    **{
        f"model.layers.{layer}.{name}": shape
        for layer in (0, 1, 2, 10)
        for name, shape in {"mlp.up.weight": (7, 6), "norm.weight": (6,), "attn.q.bias": (3,)}.items()
    },
    "model.norm.weight": (6,),
    "lm_head.weight": (13, 6),
}
MODEL_FILES = {
    "config.json": json.dumps(
        {"model_type": "tiny", "dtype": "bfloat16", "text_config": {"torch_dtype": "float16"}}
    ).encode(),
    "tokenizer.json": b'{"version": "1.0"}',
    "generation_config.json": b'{"do_sample": true}',
    "chat_template.jinja": b"{{ messages }}",
}

Weights = Mapping[str, np.ndarray]


def random_weights(
    seed: int, *, shapes: Mapping[str, Sequence[int]] = SHAPES, scale: float = 1.0
) -> dict[str, np.ndarray]:
    """Float32 weights from a normal distribution."""
    generator = np.random.default_rng(seed)
    return {
        name: (scale * generator.standard_normal(tuple(shape))).astype(np.float32) for name, shape in shapes.items()
    }


def moved(weights: Weights, seed: int, *, scale: float = 0.01) -> dict[str, np.ndarray]:
    """The weights plus a random task vector."""
    step = random_weights(seed, shapes={name: value.shape for name, value in weights.items()}, scale=scale)
    return {name: weights[name] + step[name] for name in weights}


def as_dtype(values: np.ndarray, dtype: str) -> np.ndarray:
    """Float32 values as they are stored in F32, F16 or BF16 (uint16)."""
    return float32_to_bfloat16(values) if dtype == "BF16" else values.astype(DTYPES[dtype])


def rounded(weights: Weights, dtype: str) -> dict[str, np.ndarray]:
    """The float32 values that are left after storing as `dtype`."""
    if dtype == "BF16":
        return {
            name: (as_dtype(value, dtype).astype(np.uint32) << 16).view(np.float32) for name, value in weights.items()
        }
    return {name: as_dtype(value, dtype).astype(np.float32) for name, value in weights.items()}


def safetensors_bytes(tensors: Sequence[tuple[str, np.ndarray, str]]) -> bytes:
    """A safetensors file, written independently of warpctl: (name, stored values, dtype) in the given order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values, dtype in tensors:
        header[name] = {
            "dtype": dtype,
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + values.nbytes],
        }
        data += values.tobytes()
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + data


def model_files(
    weights: Weights, *, dtype: str | Mapping[str, str] = "F32", shards: Sequence[Sequence[str]] | None = None
) -> dict[str, bytes]:
    """Files of a model folder. `shards` lists the tensor names of each file; None: one file in reverse name order."""

    def file(names: Sequence[str]) -> bytes:
        dtypes = {name: dtype if isinstance(dtype, str) else dtype[name] for name in names}
        return safetensors_bytes([(name, as_dtype(weights[name], dtypes[name]), dtypes[name]) for name in names])

    if shards is None:
        return {**MODEL_FILES, "model.safetensors": file(sorted(weights, reverse=True))}
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    weight_map = {tensor: name for name, tensors in zip(names, shards, strict=True) for tensor in tensors}
    index = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    return {**MODEL_FILES, INDEX: index, **dict(zip(names, map(file, shards), strict=True))}


def publish(store: Store, files: Mapping[str, bytes], *, key: str, role: str) -> InputArtifact:
    """Commit an import artifact with these files; what a stage input names it by."""
    task = ImportTask(what="Model", uri="memory://source", revision="main")
    stage = StageInput(
        stage_id=f"import/{key}", kind=StageKind.IMPORT, key=key, attempt_id="1", namespace="default", run="test",
        storage=store.root, task=task,
    )  # fmt: skip
    publication = Publication(store, stage)
    for name, data in files.items():
        publication.write_file(name, data)
    manifest = publication.commit()
    return InputArtifact(role=role, kind=StageKind.IMPORT, key=key, manifest_digest=manifest.digest)
