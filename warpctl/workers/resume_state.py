"""Resume states of an RL run: everything that is needed to go on as if nothing had happened.

    <attempt>/resume/<step>/policy.safetensors      theta, float32
                            anchor.safetensors      its moving average, float32; only with anchor Ema
                            optimizer.safetensors   Adam's two moments
                            metrics.jsonl           the lines of all steps so far
                            committed.json          last: names, sizes and digests of the others, and the step

A folder without committed.json is not a resume state. Random generators are not here because there are none: they are
derived anew at every step (rl/randomness.py). Nothing is pickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import safetensors.torch
from torch import Tensor

from warpctl import artifacts
from warpctl.errors import CorruptError
from warpctl.spec.stage_input import StageInput
from warpctl.storage.manifest import canonical_json, digest_of
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


@dataclass(frozen=True)
class Found:
    """A committed resume state in the store."""

    step: int
    attempt_id: str


def save(store: Store, stage: StageInput, state: ResumeState) -> None:
    """Write a resume state under this attempt, its marker last; then drop this attempt's earlier ones."""
    folder = artifacts.resume(stage.kind, stage.key, stage.attempt_id, state.step)
    files = {f"{group}.safetensors": safetensors.torch.save(dict(names)) for group, names in state.tensors.items()}
    files[METRICS] = "".join(f"{line}\n" for line in state.metrics).encode()
    facts = {name: {"size": len(data), "blake3": digest_of(data)} for name, data in files.items()}
    for name, data in files.items():
        store.write(f"{folder}/{name}", data)
    store.write(f"{folder}/{MARKER}", canonical_json({"step": state.step, "files": facts}))
    for found in find(store, stage):
        if found.attempt_id == stage.attempt_id and found.step < state.step:
            _drop(store, stage, found)


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
    folder = artifacts.resume(stage.kind, stage.key, found.attempt_id, found.step)
    marker = json.loads(store.read(f"{folder}/{MARKER}"))
    files: dict[str, bytes] = {}
    for name, facts in marker["files"].items():
        data = store.read(f"{folder}/{name}")
        if digest_of(data) != facts["blake3"]:
            raise CorruptError(f"{folder}/{name} has other bytes than its marker says")
        files[name] = data
    return ResumeState(
        step=int(marker["step"]),
        tensors={
            name.removesuffix(".safetensors"): safetensors.torch.load(data)
            for name, data in files.items()
            if name.endswith(".safetensors")
        },
        metrics=files[METRICS].decode().splitlines(),
    )


def _drop(store: Store, stage: StageInput, found: Found) -> None:
    folder = artifacts.resume(stage.kind, stage.key, found.attempt_id, found.step)
    store.delete(f"{folder}/{MARKER}")  # first: half a state must not look whole
    store.delete_tree(folder)
