"""Jobs side by side: bounds, errors and quiet afterwards."""

import os
import threading
import time

import pytest

from warpctl.storage import parallel
from warpctl.storage.parallel import cores_of_this_process, run_all


def test_the_error_of_the_earliest_job_is_raised_when_nothing_runs_any_more():
    running, failed, ended = threading.Event(), threading.Event(), threading.Event()

    def slow():
        running.set()
        assert failed.wait(30)
        time.sleep(1.0)  # time for the caller to hear of the failure; until then the other thread waits in its next job
        ended.set()
        raise ValueError("slow")

    def quick():
        assert running.wait(30)
        failed.set()
        raise KeyError("quick")

    never = []
    with pytest.raises(ValueError, match="slow"):
        run_all([slow, quick, *[lambda: (ended.wait(30), never.append(1))] * 20], parallel=2)

    assert ended.is_set()
    assert len(never) < 20


def test_without_parallelism_jobs_run_in_turn_in_this_thread():
    seen = []
    run_all([lambda n=n: seen.append((n, threading.current_thread())) for n in range(3)], parallel=1)

    assert seen == [(n, threading.current_thread()) for n in range(3)]


@pytest.mark.parametrize("num_jobs", [0, 1])
def test_what_needs_no_threads_starts_none(num_jobs, monkeypatch):
    monkeypatch.setattr(parallel, "ThreadPoolExecutor", None)
    seen = []

    run_all([lambda: seen.append(threading.current_thread())] * num_jobs, parallel=97)

    assert seen == [threading.current_thread()] * num_jobs


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 6),
        ({"cpu.max": "max 100000\n"}, 6),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 6),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.max": "not what the kernel writes"}, 6),
    ],
)
def test_cores_are_those_that_the_container_may_use(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(6)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores_of_this_process(tmp_path) == cores
