"""Small pieces of reading at once: one bounded pool for all who ask for the same number of threads."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any


def cores_of_this_process() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(jobs: Sequence[Callable[[], object]], *, parallel: int) -> None:
    """Run all jobs, at most `parallel` of them at once in this process; returns or raises when none runs any more.

    After an error nothing more is started; of several errors the one of the earliest job is raised. Jobs must not
    themselves wait for `run_all`.
    """
    if parallel == 1 or len(jobs) <= 1:
        for job in jobs:
            job()
        return
    finish_all([_pool(parallel).submit(job) for job in jobs])


def finish_all(futures: Sequence[Future[Any]]) -> None:
    """Wait for all of them, then raise the error of the first that has one; after an error nothing more is started.

    Also when waiting is interrupted, none of them runs any more when this returns.
    """
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
    for future in futures:
        if not future.cancelled():
            future.result()


@functools.cache
def _pool(parallel: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(parallel, thread_name_prefix="read")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not live on in a child
