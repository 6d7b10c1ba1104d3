"""What a policy takes while it is loaded: its float32 weights and a chunk for each thread, not a second copy of anything."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from tests.benchmarks.blocks import peak_memory_bytes
from tests.builders.checkpoints import publish, safetensors_bytes
from tests.builders.rl_stage import policy_files
from warpctl.storage.artifact import Artifact
from warpctl.storage.manifest import CHUNK_BYTES
from warpctl.storage.store import Store
from warpctl.workers.policies import load_policy, read_policy

MIB = 1024**2
CONFIG = LlamaConfig(
    vocab_size=97, hidden_size=1024, intermediate_size=4096, num_hidden_layers=4, num_attention_heads=8,
    architectures=["LlamaForCausalLM"], eos_token_id=2,
)  # fmt: skip
"""256 MiB as float32."""


def peak_growth(work: Callable[[], object]) -> int:
    """Bytes by which the peak of this process's memory is above what it has now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would be taken again, and grow nothing
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = peak_memory_bytes()
    work()
    return peak_memory_bytes() - before


@pytest.fixture
def shapes() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {
            name: tuple(weight.shape) for name, weight in AutoModelForCausalLM.from_config(CONFIG).state_dict().items()
        }


@pytest.fixture
def policy(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> Artifact:
    """Stored as bfloat16."""
    weights = safetensors_bytes(
        [
            (name, torch.ones(shape, dtype=torch.bfloat16).view(torch.uint16).numpy(), "BF16")
            for name, shape in shapes.items()
        ]
    )
    files = {**policy_files(), "config.json": CONFIG.to_json_string().encode(), "model.safetensors": weights}
    store = Store.open(str(tmp_path / "store"))
    return Artifact.of(store, publish(store, files, key="a" * 64, role="sft"))


def window(artifact: Artifact) -> int:
    """Generous: a chunk for each thread, and as much again for all else."""
    return 2 * artifact._store.parallel_reads * CHUNK_BYTES + 16 * MIB


def test_loading_holds_the_weights_once(policy: Artifact) -> None:
    load_policy(policy)  # what is imported and kept at the first time
    loaded = []

    growth = peak_growth(lambda: loaded.append(load_policy(policy)))

    weights = sum(parameter.nbytes for parameter in loaded[0][0].parameters())
    assert 250 * MIB < weights < growth + 64 * MIB
    assert growth < weights + window(policy)


def test_reading_into_weights_that_are_there_holds_no_others(
    policy: Artifact, shapes: dict[str, tuple[int, ...]]
) -> None:
    targets = {name: torch.zeros(shape) for name, shape in shapes.items()}
    read_policy(policy, "", targets)

    assert peak_growth(lambda: read_policy(policy, "", targets)) < window(policy)
    assert all((target == 1).all() for target in targets.values())
