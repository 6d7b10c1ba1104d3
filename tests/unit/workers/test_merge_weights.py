"""The merge of group after group: the next one's inner products begin while this one is written."""

from __future__ import annotations

import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.checkpoints import model_files, moved, random_weights
from tests.builders.merge_stage import inputs_of
from warpctl.errors import NumericsError
from warpctl.merging.product import Product
from warpctl.merging.task_vector import BLOCK_ELEMENTS
from warpctl.spec.merge_method import MergeMethod
from warpctl.storage.store import Store
from warpctl.workers.merge import open_source
from warpctl.workers.merge_arithmetic import MergeArithmetic
from warpctl.workers.merge_reading import DEFAULT_MEMORY_BYTES
from warpctl.workers.merge_sources import Sources
from warpctl.workers.merge_weights import merge_weights

SHAPES = {f"model.layers.{number}.w": (70, 30) for number in range(3)}
FIRST, SECOND, THIRD = sorted(SHAPES)
METHOD = MergeMethod(liti_rate=Decimal("0.3"))
WAIT_SECONDS = 30
BLOCK_BYTES = 3 * 4 * BLOCK_ELEMENTS + 200
"""Of three inputs in float32."""


class Written:
    """An output that keeps what it gets."""

    wanted = (Product("next-init", "F32"),)

    def __init__(self, on_append: Any = lambda _tensor: None) -> None:
        self.values: dict[str, list[Any]] = {}
        self._on_append = on_append

    def needs(self, _tensor: str) -> bool:
        return True

    def append(self, which: int, tensor: str, values: Any) -> None:
        assert which == 0
        self._on_append(tensor)
        self.values.setdefault(tensor, []).append(values.copy())

    def joined(self) -> dict[str, bytes]:
        return {name: np.concatenate(parts).tobytes() for name, parts in self.values.items()}

    def save_state(self, _diagnostics: Any) -> None:
        pass


@pytest.fixture
def models() -> list[dict[str, Any]]:
    init = random_weights(0, shapes=SHAPES)
    return [init, moved(init, 1), moved(init, 2)]


def merged(folder: Path, models: list[dict[str, Any]], output: Written, *, memory_bytes: int) -> list[Any]:
    store = Store.open(str(folder))
    sources = Sources.check(
        [open_source(store, each) for each in inputs_of(store, [model_files(model) for model in models])]
    )
    return merge_weights(sources, METHOD, output, on_group=lambda _number, _count: None, memory_bytes=memory_bytes)


def test_a_group_is_worked_on_while_the_one_before_it_is_written(
    tmp_path: Path, models: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = {number: threading.Event() for number in range(1, len(SHAPES) + 1)}
    original, calls = MergeArithmetic.inner_products, []

    def inner_products(arithmetic: MergeArithmetic, stored: Any) -> Any:
        calls.append(stored)
        begun[len(calls)].set()
        return original(arithmetic, stored)

    def waits(tensor: str) -> None:
        following = sorted(SHAPES).index(tensor) + 2
        assert following not in begun or begun[following].wait(WAIT_SECONDS)

    monkeypatch.setattr(MergeArithmetic, "inner_products", inner_products)
    early = Written(waits)
    groups = merged(tmp_path / "early", models, early, memory_bytes=DEFAULT_MEMORY_BYTES)

    assert len(calls) == len(SHAPES)
    monkeypatch.undo()
    monkeypatch.setattr("warpctl.workers.merge_weights.Reader.coming", lambda _reader: None)
    late = Written()
    assert merged(tmp_path / "late", models, late, memory_bytes=DEFAULT_MEMORY_BYTES) == groups
    assert early.joined() == late.joined()


def test_memory_for_one_group_alone_is_enough(
    tmp_path: Path, models: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is begun early then; waiting for room that only this group can give would be waiting for ever."""
    monkeypatch.setattr("warpctl.workers.merge_reading.LEAST_WEIGHTS_BYTES", 3 * 70 * 30 * 4 + 200)
    output = Written()
    groups = merged(tmp_path, models, output, memory_bytes=1)
    assert [group.group for group in groups] == [name.removesuffix(".w") for name in sorted(SHAPES)]
    assert sorted(output.values) == sorted(SHAPES)


@pytest.mark.parametrize("room", [1, 5000, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES, 7 * BLOCK_BYTES])
def test_groups_of_all_sizes_give_the_same_whatever_is_begun_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Small ones side by side, large ones in blocks that are read twice, one of them begun and the next one not."""
    elements = (100, 100, 3 * BLOCK_ELEMENTS + 17, 90, BLOCK_ELEMENTS, 80, 2 * BLOCK_ELEMENTS, 2 * BLOCK_ELEMENTS, 70)
    init = random_weights(0, shapes={f"layers.{number}.w": (size,) for number, size in enumerate(elements)})
    models = [init, moved(init, 1), moved(init, 2)]
    plain, other = Written(), Written()
    groups = merged(tmp_path / "plain", models, plain, memory_bytes=DEFAULT_MEMORY_BYTES)
    monkeypatch.setattr("warpctl.workers.merge_reading.LEAST_WEIGHTS_BYTES", room)

    assert merged(tmp_path / "other", models, other, memory_bytes=1) == groups
    assert other.joined() == plain.joined()


def test_what_is_not_finite_in_the_next_group_is_said_when_its_turn_comes(
    tmp_path: Path, models: list[dict[str, Any]]
) -> None:
    models[2][SECOND][3, 4] = np.nan
    output = Written()
    with pytest.raises(NumericsError, match=rf"{SECOND} of member/2 has nan at \[3, 4\]"):
        merged(tmp_path, models, output, memory_bytes=DEFAULT_MEMORY_BYTES)
    assert list(output.values) == [FIRST]


def test_an_output_that_fails_ends_what_was_begun(
    tmp_path: Path, models: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[int] = []
    monkeypatch.setattr(MergeArithmetic, "stop", lambda _arithmetic: stopped.append(1))

    def fails(_tensor: str) -> None:
        raise OSError("no room")

    before = set(threading.enumerate())
    with pytest.raises(OSError, match="no room"):
        merged(tmp_path, models, Written(fails), memory_bytes=DEFAULT_MEMORY_BYTES)
    assert set(threading.enumerate()) <= before
    assert stopped == [1]
