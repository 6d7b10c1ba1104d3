"""Small pieces of reading at once: one bounded pool for all who ask for the same number of threads."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final

CGROUP: Final = Path("/sys/fs/cgroup")
"""In a container, that of the container itself."""


def cores_of_this_process(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: those that it is bound to, but no more than its container's limit, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _limit(cgroup))))


def _limit(cgroup: Path) -> float:
    """Cores that the kernel grants to a cgroup (cgroups(7): version 2, or 1), infinite where it has no limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (int(word) for file in files for word in (cgroup / file).read_text().split())
            return quota / period if quota > 0 else math.inf
    return math.inf


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
