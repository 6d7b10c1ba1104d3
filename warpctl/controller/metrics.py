"""What Prometheus reads: base units, bounded labels, no step or UID among them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_PLURAL = re.compile(r"/(warpruns|jobs|pods|services|events|leases)(/|$)")


@dataclass
class Metrics:
    """All metrics of one controller, in a registry of their own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.reconciles = Counter("warpctl_reconcile", "Passes by result", ["result"], registry=self.registry)
        self.reconcile_seconds = Histogram(
            "warpctl_reconcile_duration_seconds",
            "Seconds of a pass, requests included",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
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
        self.retries = Gauge("warpctl_run_retries", "Failed attempts of all known runs", registry=self.registry)
        self.gpu_seconds = Gauge(
            "warpctl_gpu_seconds", "GPU-seconds that all known runs have used", registry=self.registry
        )

    def on_answer(self, method: str, path: str, code: int, seconds: float) -> None:
        """Count an answer of the API server; the path's resource only, never names."""
        del seconds
        found = _PLURAL.search(path)
        self.api_requests.labels(method, found[1] if found else "other", str(code)).inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return bytes(generate_latest(self.registry))
