"""The merge's arithmetic on threads: the same bits whatever their number, and buffers that the caller can rely on."""

from __future__ import annotations

import numpy as np
import pytest

from warpctl.errors import FinalError
from warpctl.merging import compiled_code
from warpctl.merging.task_vector import BLOCK_ELEMENTS
from warpctl.storage.bfloat16 import float32_to_bfloat16
from warpctl.workers.merge_arithmetic import BATCH_ELEMENTS, MergeArithmetic, Product

EVERY = tuple(Product(what, dtype) for what in ("merged", "next-init") for dtype in ("F32", "BF16"))
SIZE = 2 * BATCH_ELEMENTS + BLOCK_ELEMENTS + 17
STORED = [
    float32_to_bfloat16(np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)) for seed in range(3)
]
FACTORS = np.array([0.7, 0.71])


def combination(products, num_threads, stored=STORED):
    with MergeArithmetic(products, num_threads=num_threads) as arithmetic:
        batches = [[each.copy() for each in batch] for batch in arithmetic.combine(stored, FACTORS, liti_rate=0.3)]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


@pytest.mark.parametrize("products", [EVERY, EVERY[::-1], EVERY[3:], EVERY[2:3]], ids=len)
def test_products_come_whole_and_in_their_order_whatever_the_threads(products):
    expected = dict(zip(EVERY, combination(EVERY, 1), strict=True))
    found = combination(products, 5)
    assert [array.size for array in found] == [SIZE] * len(products)
    assert [array.tobytes() for array in found] == [expected[product].tobytes() for product in products]


def test_inner_products_do_not_depend_on_the_threads():
    found = []
    for num_threads in (1, 5):
        with MergeArithmetic((), num_threads=num_threads) as arithmetic:
            found.append(arithmetic.inner_products(STORED).tobytes())
            assert arithmetic.inner_products([each[:0] for each in STORED]).tolist() == np.zeros((1, 3, 3)).tolist()
    assert found[0] == found[1]


def test_a_value_beyond_its_type_is_refused_and_the_next_tensor_is_merged():
    bad = [each.copy() for each in STORED]
    for stored_N in bad:
        stored_N[BATCH_ELEMENTS + 5] = 0x7F7F
    bad[0][BATCH_ELEMENTS + 5] = 0xFF7F
    with MergeArithmetic(EVERY, num_threads=2) as arithmetic:
        with pytest.raises(FloatingPointError):
            list(arithmetic.combine(bad, FACTORS, liti_rate=0.3))
        found = next(arithmetic.combine(STORED, FACTORS, liti_rate=0.3))
        assert found[0].tobytes() == combination(EVERY, 1)[0][:BATCH_ELEMENTS].tobytes()


def test_a_compiler_that_fails_is_asked_once(monkeypatch):
    asked = []

    def fails(name):
        asked.append(name)
        raise FinalError("no compiler", hint="none")

    monkeypatch.setattr(compiled_code, "kernel", fails)
    with pytest.raises(FinalError, match="no compiler"):
        MergeArithmetic([], num_threads=2).__enter__()
    assert len(asked) == 1
