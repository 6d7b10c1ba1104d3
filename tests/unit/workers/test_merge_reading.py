"""What a merge reads ahead: in order, within its memory, and nothing twice that fits."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.checkpoints import as_dtype, model_files, moved, random_weights
from tests.builders.merge_stage import inputs_of
from tests.builders.model_folder import write_folder
from warpctl.errors import CorruptError, InputError
from warpctl.merging.groups import Group
from warpctl.merging.task_vector import BLOCK_ELEMENTS
from warpctl.storage.plain_folder import PlainFolder
from warpctl.storage.store import Store
from warpctl.storage.tensors import Checkpoint
from warpctl.workers import merge_reading
from warpctl.workers.merge import open_source
from warpctl.workers.merge_reading import LOADS_AHEAD, GroupPlan, Reader, _Ring, loads_of, plan_group
from warpctl.workers.merge_sources import Source, Sources

SHAPES = {"a.0.w": (40,), "a.1.w": (3, 50), "big.weight": (3 * BLOCK_ELEMENTS + 17,), "norm.weight": (8,)}
GROUPS = [Group(name.rpartition(".")[0], (name,)) for name in SHAPES]
SMALL = 6 * BLOCK_ELEMENTS
"""Bytes: of the big tensor, one block of three inputs in bfloat16."""


@pytest.fixture
def models() -> list[dict[str, Any]]:
    init = random_weights(0, shapes=SHAPES)
    return [init, moved(init, 1), moved(init, 2)]


@pytest.fixture
def sources(tmp_path: Path, models: list[dict[str, Any]]) -> Sources:
    store = Store.open(str(tmp_path / "store"))
    inputs = inputs_of(store, [model_files(model, dtype="BF16") for model in models])
    return Sources.check([open_source(store, each) for each in inputs])


def plans_of(sources: Sources, max_bytes: int, needs: Any = lambda _: True) -> list[GroupPlan]:
    return [plan_group(sources, group, needs, max_bytes=max_bytes) for group in GROUPS]


def test_what_fits_is_read_once_and_what_does_not_twice_in_blocks(sources: Sources) -> None:
    plans = plans_of(sources, 2 * SMALL + 400)

    assert [plan.is_read_twice for plan in plans] == [False, False, True, False]
    big = plans[2]
    assert [load.elements for load in big.products] == [
        slice(start * BLOCK_ELEMENTS, min((start + 1) * BLOCK_ELEMENTS, SHAPES["big.weight"][0])) for start in range(4)
    ]
    assert big.combination == big.products
    assert all(load.num_bytes <= SMALL + 200 for load in big.products)


def test_a_tensor_that_is_written_already_is_read_for_its_inner_products_only(sources: Sources) -> None:
    big = plans_of(sources, 2 * SMALL + 400, needs=lambda name: name != "big.weight")[2]
    assert (len(big.products), big.combination) == (4, ())


@pytest.mark.parametrize("max_bytes", [1, SMALL, 2 * SMALL + 400, 10**9])
def test_weights_come_as_they_are_stored_whatever_the_memory(
    sources: Sources, models: list[dict[str, Any]], max_bytes: int
) -> None:
    plans = plans_of(sources, max_bytes)
    loads = list(loads_of(plans))
    found: dict[str, list[Any]] = {}
    with Reader(sources, loads, max_bytes=max_bytes) as reader:
        for load in loads:
            with reader.take(load) as weights:
                for name, stored_K in weights.items():
                    assert not any(stored_N.flags.writeable for stored_N in stored_K)
                    found.setdefault(name, []).append([stored_N.copy() for stored_N in stored_K])

    for name in SHAPES:
        passes = 2 if plans[[group.tensors[0] for group in GROUPS].index(name)].is_read_twice else 1
        for row, model in enumerate(models):
            joined = np.concatenate([part[row] for part in found[name]])
            assert np.array_equal(joined, np.concatenate([as_dtype(model[name].ravel(), "BF16")] * passes))


def test_all_loads_share_one_piece_of_memory(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    max_bytes = 2 * SMALL + 400
    made: list[int] = []
    empty = np.empty
    monkeypatch.setattr(merge_reading.np, "empty", lambda size, kind: (made.append(size), empty(size, kind))[1])
    loads = list(loads_of(plans_of(sources, max_bytes)))

    with Reader(sources, loads, max_bytes=max_bytes) as reader:
        for load in loads:
            with reader.take(load):
                pass

    assert len(loads) == 11
    assert made == [max_bytes + -max_bytes % 64]


@given(st.integers(900, 1024), st.lists(st.one_of(st.integers(1, 1024), st.just("give back")), max_size=60))
def test_places_in_a_ring_never_overlap_and_come_back_in_order(size: int, steps: list[Any]) -> None:
    ring, taken = _Ring(size), []
    for step in steps:
        if step == "give back":
            if taken:
                ring.give_back(taken.pop(0))
        elif (place := ring.take(step)) is not None:
            assert place.stop - place.start >= step
            assert place.stop <= ring.bytes.size
            assert place.start % 64 == 0
            assert all(place.stop <= other.start or other.stop <= place.start for other in taken)
            taken.append(place)
        else:
            assert taken


def test_what_is_larger_than_the_ring_has_it_alone() -> None:
    ring = _Ring(128)
    first = ring.take(64)
    assert first is not None
    assert ring.take(1000) is None
    ring.give_back(first)
    place = ring.take(1000)
    assert place is not None
    assert len(ring.bytes[place]) >= 1000
    assert ring.take(64) is None


def test_the_next_slices_are_read_while_these_are_worked_on(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = list(loads_of(plans_of(sources, 10**9)))
    second = threading.Event()
    read = merge_reading._read

    def noted(sources: Sources, load: Any, buffer: Any) -> Any:
        if load is loads[1]:
            second.set()
        return read(sources, load, buffer)

    monkeypatch.setattr(merge_reading, "_read", noted)
    with Reader(sources, loads, max_bytes=10**9) as reader, reader.take(loads[0]):
        assert second.wait(10)


def test_only_the_next_few_loads_are_held_however_much_memory_there_is(sources: Sources) -> None:
    loads = list(loads_of(plans_of(sources, 10**9))) * 3
    with Reader(sources, loads, max_bytes=10**9) as reader:
        for load in loads:
            with reader.take(load):
                assert len(reader._pending) <= LOADS_AHEAD
    assert len(loads) > 2 * LOADS_AHEAD


def test_a_read_that_fails_is_told_where_its_weights_are_needed(sources: Sources) -> None:
    loads = list(loads_of(plans_of(sources, 10**9)))
    artifact = sources.all[1].checkpoint.artifact
    artifact._recent.clear()
    artifact._store.delete(artifact.entry("model.safetensors").path)

    reader = Reader(sources, loads, max_bytes=10**9)
    with reader, pytest.raises(CorruptError, match="the object is gone"), reader.take(loads[0]):
        pass


def test_loads_come_in_the_order_that_was_planned(sources: Sources) -> None:
    loads = list(loads_of(plans_of(sources, 10**9)))
    reader = Reader(sources, loads, max_bytes=10**9)
    with reader, pytest.raises(ValueError, match="is not the next load"), reader.take(loads[1]):
        pass


def test_a_shard_that_has_become_shorter_is_told_of_and_not_of_what_followed(tmp_path: Path, models: Any) -> None:
    write_folder(tmp_path / "init", model_files(models[0], dtype="BF16"))
    folder = PlainFolder.open(str(tmp_path / "init"))
    sources = Sources.check([Source("init", Checkpoint.open(folder))])
    loads = list(loads_of(plans_of(sources, 10**9)))
    shorter = (tmp_path / "init" / "model.safetensors").read_bytes()[:64]
    (tmp_path / "init" / "new").write_bytes(shorter)
    (tmp_path / "init" / "new").replace(tmp_path / "init" / "model.safetensors")
    reader = Reader(sources, loads, max_bytes=10**9)
    with reader, pytest.raises(InputError, match="changed while it was read"), reader.take(loads[0]):
        pass
    folder.close()
