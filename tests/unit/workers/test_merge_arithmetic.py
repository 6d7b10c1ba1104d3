"""The merge's arithmetic on threads: the same bits whatever their number, and buffers that the caller can rely on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from warpctl.errors import FinalError
from warpctl.merging import compiled_code, kernels
from warpctl.merging.task_vector import BLOCK_ELEMENTS
from warpctl.storage.bfloat16 import float32_to_bfloat16
from warpctl.workers import merge_arithmetic
from warpctl.workers.merge_arithmetic import SHARE_ELEMENTS, MergeArithmetic, Product

EVERY = tuple(Product(what, dtype) for what in ("merged", "next-init") for dtype in ("F32", "BF16"))
SIZE = 5 * SHARE_ELEMENTS + BLOCK_ELEMENTS + 17
STORED = [
    float32_to_bfloat16(np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)) for seed in range(3)
]
FEW = [each[5:77] for each in STORED]
FACTORS = np.array([-0.41, 0.7, 0.71])


def combination(products, num_threads, stored=STORED):
    with MergeArithmetic(products, num_threads=num_threads) as arithmetic:
        return combined_by(arithmetic, len(products), stored)


def combined_by(arithmetic, num_products, stored=STORED, on_write=lambda _which, _place: None):
    found = [[] for _ in range(num_products)]

    def write(which, values):
        on_write(which, len(found[which]))
        found[which].append(values.copy())

    arithmetic.combine(stored, FACTORS, write, liti_rate=0.3)
    return [np.concatenate(parts) for parts in found]


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
            several, of_none, of_few = arithmetic.inner_products([STORED, [each[:0] for each in STORED], FEW])
            assert of_none.tolist() == np.zeros((1, 3, 3)).tolist()
            assert of_few.tobytes() == arithmetic.inner_products([FEW])[0].tobytes()
            found.append(several.tobytes())
    assert found[0] == found[1]


def test_a_value_beyond_its_type_is_refused_and_the_next_tensor_is_merged():
    bad = [each.copy() for each in STORED]
    for stored_N in bad:
        stored_N[SHARE_ELEMENTS + 5] = 0x7F7F
    bad[0][SHARE_ELEMENTS + 5] = 0xFF7F
    with MergeArithmetic(EVERY, num_threads=2) as arithmetic:
        with pytest.raises(FloatingPointError):
            combined_by(arithmetic, len(EVERY), bad)
        assert combined_by(arithmetic, len(EVERY))[0].tobytes() == combination(EVERY, 1)[0].tobytes()


@pytest.mark.parametrize("place", range(6))
def test_an_error_of_writing_ends_all_threads(place):
    """Those that wait for their turn would wait for ever."""

    def fails(which, piece):
        if (which, piece) == (1, place):
            raise OSError("no room")

    with MergeArithmetic(EVERY, num_threads=3) as arithmetic:
        with pytest.raises(OSError, match="no room"):
            combined_by(arithmetic, len(EVERY), on_write=fails)
        assert combined_by(arithmetic, len(EVERY))[0].tobytes() == combination(EVERY, 1)[0].tobytes()


def test_an_interruption_stays_one_and_leaves_no_thread_at_work(monkeypatch):
    """Ctrl-C comes where the main thread waits; what a thread meets after that is not what the user wants to hear."""
    interrupted, ended = threading.Event(), []
    original = merge_arithmetic.wait

    def interrupts(futures, **options):
        if options:
            interrupted.set()
            raise KeyboardInterrupt
        return original(futures)

    def fails(which, piece):
        assert interrupted.wait(30)
        ended.append((which, piece))
        raise OSError("no room")

    monkeypatch.setattr(merge_arithmetic, "wait", interrupts)
    with MergeArithmetic(EVERY, num_threads=2) as arithmetic:
        with pytest.raises(KeyboardInterrupt):
            combined_by(arithmetic, len(EVERY), on_write=fails)
        assert ended == [(0, 0)]


def test_a_thread_that_cannot_be_started_leaves_none_at_work(monkeypatch):
    """Those that run already end before the caller hears of it: it will close what they write to."""
    started, has_refused, has_raised, late = [], threading.Event(), threading.Event(), []
    submit = ThreadPoolExecutor.submit

    def refuses(pool, work, *arguments):
        if started:
            has_refused.set()
            raise RuntimeError("can't start new thread")
        started.append(work)
        return submit(pool, work, *arguments)

    def write(_which, _piece):
        assert has_refused.wait(30)
        late.append(has_raised.is_set())

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuses)
    with MergeArithmetic(EVERY, num_threads=2) as arithmetic:
        with pytest.raises(RuntimeError, match="new thread"):
            combined_by(arithmetic, len(EVERY), on_write=write)
        has_raised.set()
    assert late
    assert not any(late)


def test_what_is_stopped_is_not_worked_on_any_more(monkeypatch):
    worked_on = []
    monkeypatch.setattr(kernels, "inner_products", lambda *arguments: worked_on.append(arguments))
    with MergeArithmetic((), num_threads=2) as arithmetic:
        arithmetic.inner_products([STORED])
        assert len(worked_on) == 6
        arithmetic.stop()
        arithmetic.inner_products([STORED])
    assert len(worked_on) == 6


def test_one_product_is_written_by_one_thread_at_a_time_and_two_side_by_side():
    side_by_side = threading.Barrier(2, timeout=30)
    writing = [threading.Lock() for _ in range(2)]

    def write(which, piece):
        assert writing[which].acquire(blocking=False)
        if (which, piece) in {(1, 0), (0, 1)}:
            side_by_side.wait()
        writing[which].release()

    with MergeArithmetic(EVERY[:2], num_threads=3) as arithmetic:
        combined_by(arithmetic, 2, on_write=write)


def test_a_compiler_that_fails_is_asked_once(monkeypatch):
    asked = []

    def fails(name):
        asked.append(name)
        raise FinalError("no compiler", hint="none")

    monkeypatch.setattr(compiled_code, "kernel", fails)
    with pytest.raises(FinalError, match="no compiler"):
        MergeArithmetic([], num_threads=2).__enter__()
    assert len(asked) == 1
