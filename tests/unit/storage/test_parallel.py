"""Jobs side by side: bounds, errors and quiet afterwards."""

import threading
import time

import pytest

from warpctl.storage import parallel
from warpctl.storage.parallel import run_all


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
