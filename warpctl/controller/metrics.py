"""What Prometheus reads: base units, bounded labels, no step or UID among them."""

from __future__ import annotations

import re
import threading
from collections import Counter as Tally
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from warpctl import names
from warpctl.controller.status_update import number
from warpctl.plan.observed import AttemptState
from warpctl.spec.reasons import Reason
from warpctl.spec.status import READY

if TYPE_CHECKING:
    from warpctl.controller.world import WarpRunObject
    from warpctl.executors.job_facts import JobFacts, PodFacts

MAX_RUNS_SHOWN = 2000
"""Series of warpctl_run_info: what is not finished first."""
_RESULTS = {AttemptState.COMPLETE: "Succeeded", AttemptState.FAILED: "Failed"}
_STAGE_BUCKETS = (10, 30, 60, 300, 900, 1800, 3600, 7200, 14_400, 28_800, 57_600, 115_200, 230_400)
"""Ten seconds to 64 hours."""
_PLURAL = re.compile(r"/(warpruns|jobs|pods|services|events|leases)(/|$)")


_OWN_BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 5)


@dataclass
class Metrics:
    """All metrics of one controller, in a registry of their own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    _waited: threading.local = field(default_factory=threading.local)
    """`seconds` for which each thread has waited for the API server."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Two scrapes at once would see each other's half-written gauges."""

    def __post_init__(self) -> None:
        self.reconciles = Counter("warpctl_reconcile", "Passes by result", ["result"], registry=self.registry)
        self.reconcile_seconds = Histogram(
            "warpctl_reconcile_duration_seconds",
            "Seconds of a pass, requests included",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
            registry=self.registry,
        )
        self.reconcile_own_seconds = Histogram(
            "warpctl_reconcile_own_seconds",
            "Seconds of a pass without its requests to the API server",
            buckets=_OWN_BUCKETS,
            registry=self.registry,
        )
        self.api_requests = Counter(
            "warpctl_api_requests", "Requests to the API server", ["method", "resource", "code"], registry=self.registry
        )
        self.watch_restarts = Counter(
            "warpctl_watch_restarts", "Watches that had to be begun again", registry=self.registry
        )
        self.is_leader = Gauge("warpctl_leader", "1 while this controller leads", registry=self.registry)
        self.queue_depth = Gauge("warpctl_queue_depth", "Runs that wait for a pass", registry=self.registry)
        self.runs = Gauge(
            "warpctl_runs", "WarpRuns by the reason of their Ready condition", ["reason"], registry=self.registry
        )
        self.run_info = Gauge(
            "warpctl_run_info",
            f"1 for each WarpRun with the reason of its Ready condition; at most {MAX_RUNS_SHOWN}, unfinished ones first",
            ["namespace", "name", "reason"],
            registry=self.registry,
        )
        self.runs_not_shown = Gauge(
            "warpctl_run_info_omitted", "WarpRuns that warpctl_run_info has no place for", registry=self.registry
        )
        self.stage_seconds = Histogram(
            "warpctl_stage_duration_seconds",
            "Seconds of an attempt of a stage that has ended, from its first container's start",
            ["kind", "result"],
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self.retries = Gauge("warpctl_run_retries", "Failed attempts of all known runs", registry=self.registry)
        self.gpu_seconds = Gauge(
            "warpctl_gpu_seconds", "GPU-seconds that all known runs have used", registry=self.registry
        )

    def on_answer(self, method: str, path: str, code: int, seconds: float) -> None:
        """Count an answer of the API server; the path's resource only, never names."""
        self._waited.seconds = getattr(self._waited, "seconds", 0.0) + seconds
        found = _PLURAL.search(path)
        self.api_requests.labels(method, found[1] if found else "other", str(code)).inc()

    def take_api_seconds(self) -> float:
        """Seconds for which the calling thread has waited for the API server since its last call."""
        seconds: float = getattr(self._waited, "seconds", 0.0)
        self._waited.seconds = 0.0
        return seconds

    def on_end(self, job: JobFacts, pods: Collection[PodFacts], now: datetime) -> None:
        """A Job has ended: count how long it worked. One that was stopped before it had a container did not work."""
        starts = [pod.started_at for pod in pods if pod.started_at]
        if not starts and job.state is AttemptState.ACTIVE:
            return
        began = min(starts, default=job.started_at or job.created_at)
        seconds = ((job.ended_at or now) - began).total_seconds()
        result = _RESULTS.get(job.state, "Stopped")
        self.stage_seconds.labels(names.kind_of_job(job.name), result).observe(max(0.0, seconds))

    def text(self, runs: Iterable[WarpRunObject]) -> bytes:
        """In Prometheus' text format; `runs`: all that are known now."""
        with self._lock:
            self._show(runs)
            return bytes(generate_latest(self.registry))

    def _show(self, runs: Iterable[WarpRunObject]) -> None:
        reasons: Tally[str] = Tally()
        shown, retries, gpu_seconds = [], 0, 0.0
        for run in runs:
            reason = _reason(run)
            reasons[reason] += 1
            retries += int(number(run.status.get("retries")))
            gpu_seconds += 3600 * number(run.status.get("gpuHours"))
            shown.append((reason == Reason.SUCCEEDED, run.namespace, run.name, reason))
        shown.sort()
        self.runs.clear()
        for reason, count in reasons.items():
            self.runs.labels(reason).set(count)
        self.run_info.clear()
        for _, namespace, name, reason in shown[:MAX_RUNS_SHOWN]:
            self.run_info.labels(namespace, name, reason).set(1)
        self.runs_not_shown.set(max(0, len(shown) - MAX_RUNS_SHOWN))
        self.retries.set(retries)
        self.gpu_seconds.set(gpu_seconds)


def _reason(run: WarpRunObject) -> str:
    """Of the Ready condition; Unknown before the first visit."""
    for condition in run.status.get("conditions") or ():
        if condition["type"] == READY:
            return str(condition["reason"])
    return "Unknown"
