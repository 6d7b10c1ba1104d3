"""Resume states of an RL run: everything that is needed to go on as if nothing had happened.

    <attempt>/resume/<step>/policy.safetensors      theta, float32
                            anchor.safetensors      its moving average, float32; only with anchor Ema
                            optimizer.safetensors   Adam's two moments
                            metrics.jsonl           the lines of all steps so far
                            committed.json          last: names, sizes and digests of the others, the step, the tracker's curve

A folder without committed.json is not a resume state. Random generators are not here because there are none: they are
derived anew at every step (rl/randomness.py). Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from blake3 import blake3
from torch import Tensor

from warpctl import artifacts
from warpctl.errors import CorruptError
from warpctl.spec.stage_input import StageInput
from warpctl.storage.chunk_hasher import CHUNK_BYTES
from warpctl.storage.headers import TensorSpec, split_into_shards
from warpctl.storage.manifest import canonical_json
from warpctl.storage.store import Store

MARKER = "committed.json"
METRICS = "metrics.jsonl"
_MARKER_PATH = re.compile(r"/attempts/(?P<attempt>[^/]+)/resume/(?P<step>\d+)/committed\.json$")

TensorGroups = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class ResumeState:
    """A state after `step` optimizer steps."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    """By group (policy, anchor, optimizer), then by name."""
    metrics: list[str]
    """One JSON line a record, without line ends."""
    tracker: Mapping[str, str] = field(default_factory=dict)
    """Which curve of which tracker goes on; {} without one."""


@dataclass(frozen=True)
class Found:
    """A committed resume state in the store."""

    step: int
    attempt_id: str


def save(store: Store, stage: StageInput, state: ResumeState) -> None:
    """Write a resume state under this attempt, its marker last; then drop this attempt's earlier ones.

    Tensors are streamed one by one: at most one of them exists a second time.
    """
    folder = artifacts.resume(stage.kind, stage.key, stage.attempt_id, state.step)
    parts: dict[str, Iterator[bytes | memoryview]] = {
        f"{group}.safetensors": _safetensors(tensors) for group, tensors in state.tensors.items()
    }
    parts[METRICS] = (f"{line}\n".encode() for line in state.metrics)
    facts = {name: _write(store, f"{folder}/{name}", pieces) for name, pieces in parts.items()}
    marker = {"step": state.step, "inputs": _inputs(stage), "files": facts, "tracker": dict(state.tracker)}
    store.write(f"{folder}/{MARKER}", canonical_json(marker))
    for found in find(store, stage):
        if found.attempt_id == stage.attempt_id and found.step < state.step:
            _drop(store, stage, found)


def _inputs(stage: StageInput) -> dict[str, str]:
    """What shaped the state, by role: content digests. Evaluation prompts shape nothing in training."""
    return {item.role: item.content_digest for item in stage.inputs if item.role != "prompts/evaluation"}


def _write(store: Store, path: str, pieces: Iterator[bytes | memoryview]) -> dict[str, int | str]:
    """Stream a file into the store; its size and digest."""
    size, hasher = 0, blake3()
    with store.open_write(path) as sink:
        for piece in pieces:
            sink.write(piece)
            hasher.update(piece)
            size += memoryview(piece).nbytes
    return {"size": size, "blake3": hasher.hexdigest()}


def _safetensors(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file of float32 tensors, in pieces."""
    (shard,) = split_into_shards(
        (TensorSpec(name, tuple(tensor.shape)) for name, tensor in tensors.items()), max_shard_bytes=sys.maxsize
    )
    yield shard.head
    for info in shard.tensors:
        tensor = tensors[info.name].detach()
        if tensor.dtype != torch.float32:
            raise ValueError(f"{info.name} is {tensor.dtype}; resume states are float32")
        # reshape: a copy only where the tensor is not contiguous
        yield tensor.cpu().reshape(-1).numpy().data.cast("B")


def find(store: Store, stage: StageInput) -> list[Found]:
    """Committed resume states of all attempts of the stage, the most advanced first."""
    matches = (_MARKER_PATH.search(f"/{file.path}") for file in store.list(artifacts.attempts(stage.kind, stage.key)))
    found = [Found(step=int(match["step"]), attempt_id=match["attempt"]) for match in matches if match]
    return sorted(found, key=lambda state: (state.step, state.attempt_id), reverse=True)


def load_newest(store: Store, stage: StageInput) -> Iterator[ResumeState | CorruptError]:
    """The newest committed state of any attempt; damaged ones come as errors before it, so that they can be logged."""
    for found in find(store, stage):
        try:
            yield _load(store, stage, found)
        except (CorruptError, FileNotFoundError, ValueError, KeyError) as error:
            yield CorruptError(f"resume state of step {found.step}, attempt {found.attempt_id}: {error}")
        else:
            return


def drop_all(store: Store, stage: StageInput) -> None:
    """Delete the resume states of all attempts: the stage is committed and nobody needs them."""
    for found in find(store, stage):
        _drop(store, stage, found)


def _load(store: Store, stage: StageInput, found: Found) -> ResumeState:
    """Every file is verified whole before any tensor is read; tensors are mapped from the disk, not held in memory."""
    folder = artifacts.resume(stage.kind, stage.key, found.attempt_id, found.step)
    marker = json.loads(store.read(f"{folder}/{MARKER}"))
    # One key may have had two inits: one that was lost, and its remake on hardware that does not repeat its bits.
    if marker["inputs"] != _inputs(stage):
        raise ValueError("it was made from other inputs than this attempt has")
    tensors: dict[str, dict[str, Tensor]] = {}
    metrics = b""
    with tempfile.TemporaryDirectory(prefix="warpctl-resume-") as place:
        for name, facts in marker["files"].items():
            local = _verified(store, f"{folder}/{name}", facts, Path(place) / name)
            if name == METRICS:
                metrics = local.read_bytes()
            else:  # a mapped file stays readable when its name is gone
                tensors[name.removesuffix(".safetensors")] = safetensors.torch.load_file(local)
    return ResumeState(
        step=int(marker["step"]),
        tensors=tensors,
        metrics=metrics.decode().splitlines(),
        tracker=marker.get("tracker", {}),
    )


def _verified(store: Store, path: str, facts: Mapping[str, Any], copy: Path) -> Path:
    """A local file with the bytes that the marker promises: the store's own on a local disk, else a copy."""
    local, hasher = store.local_path(path), blake3()
    with contextlib.ExitStack() as stack:
        sink = None if local else stack.enter_context(copy.open("wb"))
        for start in range(0, facts["size"], CHUNK_BYTES):
            piece = store.read_range(path, start, min(start + CHUNK_BYTES, facts["size"]))
            hasher.update(piece)
            if sink:
                sink.write(piece)
    found = store.stat(path)
    if found is None or found.size != facts["size"] or hasher.hexdigest() != facts["blake3"]:
        raise CorruptError(f"{path} has other bytes than its marker says")
    return local or copy


def _drop(store: Store, stage: StageInput, found: Found) -> None:
    folder = artifacts.resume(stage.kind, stage.key, found.attempt_id, found.step)
    store.delete(f"{folder}/{MARKER}")  # first: half a state must not look whole
    store.delete_tree(folder)
