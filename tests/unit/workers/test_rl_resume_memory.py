"""Resume states are streamed: a whole file is never held in memory beside the tensors."""

from __future__ import annotations

import tracemalloc

import pytest
import torch

from tests.builders.rl_stage import rl_stage
from warpctl.storage.store import Store
from warpctl.workers import resume_state
from warpctl.workers.resume_state import ResumeState

MIB = 1024**2
NUM_TENSORS, TENSOR_MIB = 12, 8


@pytest.mark.parametrize("scheme", ["disk", "memory"])
def test_what_is_loaded_is_what_was_saved(tmp_path, scheme):
    """Names, shapes and bits; a transposed tensor and a scalar too. A store elsewhere is read through a copy."""
    storage = str(tmp_path) if scheme == "disk" else "memory://resume"
    stage, store = rl_stage(storage), Store.open(storage)
    wide = torch.randn(3, 5)
    tensors = {"policy": {"b": wide, "a": wide.t(), "one": torch.tensor(2.5)}, "optimizer": {}}
    state = ResumeState(step=4, tensors=tensors, metrics=['{"step":0}', '{"step":1}'], tracker={"curve": "c"})

    resume_state.save(store, stage, state)
    (found,) = resume_state.load_newest(store, stage)

    assert (found.step, found.metrics, found.tracker) == (state.step, state.metrics, state.tracker)
    assert {group: set(names) for group, names in found.tensors.items()} == {
        "policy": {"a", "b", "one"},
        "optimizer": set(),
    }
    for name, tensor in tensors["policy"].items():
        assert torch.equal(found.tensors["policy"][name], tensor), name


def test_anything_but_float32_is_refused(tmp_path):
    stage = rl_stage(str(tmp_path))
    state = ResumeState(step=1, tensors={"policy": {"w": torch.zeros(2, dtype=torch.bfloat16)}}, metrics=[])

    with pytest.raises(ValueError, match=r"w is torch\.bfloat16; resume states are float32"):
        resume_state.save(Store.open(str(tmp_path)), stage, state)

    assert resume_state.find(Store.open(str(tmp_path)), stage) == []


def test_saving_and_loading_hold_no_whole_file(tmp_path):
    """96 MiB of weights: a few MiB to save, two pieces of 16 MiB to load and verify."""
    stage, store = rl_stage(str(tmp_path)), Store.open(str(tmp_path))
    tensors = {f"w{number:02d}": torch.zeros(TENSOR_MIB * MIB // 4) for number in range(NUM_TENSORS)}
    state = ResumeState(step=1, tensors={"policy": tensors}, metrics=[])

    tracemalloc.start()
    try:
        resume_state.save(store, stage, state)
        saving = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        (found,) = resume_state.load_newest(store, stage)
        loading = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(found.tensors["policy"]) == NUM_TENSORS
    assert saving < TENSOR_MIB * MIB
    assert loading < 40 * MIB
