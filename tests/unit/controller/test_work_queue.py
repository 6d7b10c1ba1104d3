"""The work queue: each key once, never two passes at a time, pauses that grow."""

from __future__ import annotations

import threading

import pytest

from warpctl.controller.work_queue import WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def a_queue() -> tuple[WorkQueue[str], Clock]:
    clock = Clock()
    return WorkQueue(clock, first_pause_seconds=1.0, longest_pause_seconds=8.0), clock


def test_a_key_that_is_added_twice_is_taken_once() -> None:
    queue, _ = a_queue()
    for key in ("a", "b", "a"):
        queue.add(key)

    assert [queue.take(), queue.take(), len(queue)] == ["a", "b", 0]


def test_a_key_that_is_added_during_its_pass_waits_for_the_end_of_it() -> None:
    queue, _ = a_queue()
    queue.add("a")
    assert queue.take() == "a"

    queue.add("a")
    queue.add("a")

    assert len(queue) == 0
    queue.done("a")
    assert (len(queue), queue.take()) == (1, "a")


def test_of_several_wishes_for_later_the_earliest_counts() -> None:
    queue, clock = a_queue()
    queue.add_after("a", 10.0)
    queue.add_after("a", 5.0)
    queue.add_after("a", 7.0)
    clock.now += 6.0

    queue.add("b")

    assert [queue.take(), queue.take()] == ["b", "a"]
    queue.done("a")
    clock.now += 60.0
    queue.add("c")
    assert (queue.take(), len(queue)) == ("c", 0)


def test_pauses_double_up_to_the_longest_and_start_anew_after_a_success() -> None:
    queue, clock = a_queue()
    pauses = []
    for _ in range(6):
        pauses.append(queue.add_failed("a"))
        clock.now += pauses[-1]

    for pause, longest in zip(pauses, (1, 2, 4, 8, 8, 8), strict=True):
        assert longest / 2 <= pause <= longest
    queue.forget_failures("a")
    assert queue.add_failed("a") <= 1.0


def test_passes_that_fail_during_the_pause_do_not_make_it_longer() -> None:
    queue, clock = a_queue()
    pause = queue.add_failed("a")
    clock.now += pause / 4

    for _ in range(20):
        assert queue.add_failed("a") == pytest.approx(pause * 3 / 4)
    clock.now += pause * 3 / 4 + 1e-9  # the sum is rounded

    assert queue.take() == "a"
    assert queue.add_failed("a") <= 2.0


def test_who_waits_is_woken_by_a_key_and_by_the_end() -> None:
    queue: WorkQueue[str] = WorkQueue()
    taken: list[str | None] = []
    worker = threading.Thread(target=lambda: taken.extend([queue.take(), queue.take()]))
    worker.start()

    queue.add_after("late", 0.02)
    while not taken and worker.is_alive():
        worker.join(0.01)
        if queue._working:
            break
    queue.shut()
    worker.join(5.0)

    assert taken == ["late", None]


def test_two_threads_never_work_on_one_key() -> None:
    queue: WorkQueue[int] = WorkQueue()
    at_work: set[int] = set()
    collisions: list[int] = []
    passes: list[int] = []
    lock = threading.Lock()

    def work() -> None:
        while (key := queue.take()) is not None:
            with lock:
                collisions.extend({key} & at_work)
                at_work.add(key)
                passes.append(key)
            with lock:
                at_work.discard(key)
            queue.done(key)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for number in range(2000):
        queue.add(number % 3)
    while len(queue) or queue._working:
        pass
    queue.shut()
    for worker in workers:
        worker.join(5.0)

    assert collisions == []
    assert set(passes) == {0, 1, 2}
