"""Wires a controller together and runs it until it is told to leave, or has lost its lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from warpctl import names
from warpctl.controller.events import EventRecorder
from warpctl.controller.lease import Leadership, NotLeaderError
from warpctl.controller.metrics import Metrics
from warpctl.controller.reconciler import Reconciler
from warpctl.controller.work_queue import WorkQueue
from warpctl.controller.world import Cluster, RunKey
from warpctl.errors import StoreUnavailableError
from warpctl.kube.api import Api
from warpctl.kube.errors import ClusterError
from warpctl.spec.controller_config import ControllerConfig
from warpctl.storage.store import Retries, Store

if TYPE_CHECKING:
    from datetime import datetime

    import structlog

    from warpctl.executors.job_facts import JobFacts, PodFacts

STORE_RETRIES = Retries(attempts=3, total_seconds=10.0, wait_max_seconds=2.0)
"""Short: a pass that waits for a store keeps a thread from other runs; the queue asks again."""
LEAVE_SECONDS = 20.0


@dataclass
class SharedStores:
    """One Store a URI."""

    retries: Retries = STORE_RETRIES
    _stores: dict[str, Store] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, uri: str) -> Store:
        with self._lock:
            if uri not in self._stores:
                self._stores[uri] = Store.open(uri, retries=self.retries)
            return self._stores[uri]


@dataclass(frozen=True)
class Options:
    """What a controller process is told besides its configuration."""

    identity: str
    lease_namespace: str
    namespace: str = ""
    """Runs of this namespace only; "": of all."""
    silence_seconds: float = 90.0
    lease_seconds: float = 15.0
    renew_within_seconds: float = 10.0
    retry_seconds: float = 2.0


@dataclass
class Controller:
    """One controller process."""

    api: Api
    config: ControllerConfig
    options: Options
    log: structlog.stdlib.BoundLogger
    metrics: Metrics = field(default_factory=Metrics)
    stop: threading.Event = field(default_factory=threading.Event)
    queue: WorkQueue[RunKey] = field(default_factory=WorkQueue)
    cluster: Cluster = field(init=False)
    leadership: Leadership = field(init=False)
    reconciler: Reconciler = field(init=False)
    _has_lost: bool = False
    _has_died: bool = False
    _leads: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.api.on_answer = self.metrics.on_answer
        # A dead connection must not cost the lead: there is time for a second try on a new one.
        patience = self.options.renew_within_seconds / 2
        election = replace(self.api, patience_seconds=patience, _open=set(), _lock=threading.Lock())
        self.leadership = Leadership(
            election,
            self.options.lease_namespace,
            names.LEASE,
            self.options.identity,
            self._gain,
            self._lose,
            self.options.lease_seconds,
            self.options.renew_within_seconds,
            self.options.retry_seconds,
            on_trouble=lambda why: self.log.warning("lease", error=why),
        )
        self.api.may_write = self.leadership.require
        self.cluster = Cluster(
            self.api,
            self.queue.add,
            self.options.namespace,
            self._restarted,
            self.options.silence_seconds,
        )
        self.cluster.on_end = self._ended
        now = self.api.clock.now
        events = EventRecorder(self.api, self.options.identity, self.log, now)
        self.reconciler = Reconciler(self.api, self.cluster, SharedStores(), self.config, events, now)

    def run(self) -> bool:
        """Work until `stop` is set or the lease is lost; True when it was asked to leave."""
        watchers = [self._thread(each.run, each.resource.plural, self.stop) for each in self.cluster.reflectors()]
        election = self._thread(self.leadership.run, "lease", self.stop)
        workers = [self._thread(self._work, f"worker-{i}") for i in range(self.config.workers)]
        self.stop.wait()
        reason = "lease lost" if self._has_lost else "a thread died" if self._has_died else "asked to stop"
        self.log.info("leaving", reason=reason)
        self.queue.shut()
        until = time.monotonic() + LEAVE_SECONDS
        for worker in workers:
            worker.join(max(0.1, until - time.monotonic()))
        self.api.close()
        for thread in (*watchers, election):
            thread.join(max(0.1, until - time.monotonic()))
        return not (self._has_lost or self._has_died)

    def is_ready(self) -> tuple[bool, bytes]:
        """Whether the lists are complete."""
        missing = [each.resource.plural for each in self.cluster.reflectors() if not each.is_synced.is_set()]
        return not missing, f"waiting for {', '.join(missing)}\n".encode() if missing else b"ok\n"

    def is_healthy(self) -> tuple[bool, bytes]:
        """Whether every list has heard of the server lately; a restart would help if one has not."""
        longest = 10 * self.options.silence_seconds
        old = [
            each.resource.plural
            for each in self.cluster.reflectors()
            if each.is_synced.is_set() and each.seconds_since_contact() > longest
        ]
        return not old, f"nothing heard of {', '.join(old)}\n".encode() if old else b"ok\n"

    def metrics_text(self) -> tuple[bool, bytes]:
        """Metrics, those of the runs computed now."""
        self.metrics.queue_depth.set(len(self.queue))
        return True, self.metrics.text(self.cluster.runs.items())

    def _work(self) -> None:
        while not self.stop.is_set() and not all(each.is_synced.is_set() for each in self.cluster.reflectors()):
            self.stop.wait(0.1)
        while not self.stop.is_set() and not self._leads.wait(0.5):
            pass
        while (key := self.queue.take()) is not None:
            try:
                self._pass(key)
            finally:
                self.queue.done(key)

    def _pass(self, key: RunKey) -> None:
        began = time.monotonic()
        self.metrics.take_api_seconds()
        log = self.log.bind(run="/".join(key))
        result = "done"
        try:
            self.leadership.require()
            again = self.reconciler.reconcile(key)
            self.queue.forget_failures(key)
            if again is not None:
                self.queue.add_after(key, again)
        except NotLeaderError:
            # The lead may be back a moment later: a renewal was late, and nobody has taken over.
            result = "not-leader"
            self.queue.add_failed(key)
        except ClusterError as error:
            result = "conflict" if error.is_conflict else "cluster-error"
            pause = self.queue.add_failed(key)
            if not error.is_conflict:  # somebody was faster: the next look sees it
                log.warning("pass failed", error=error.message, again_in_seconds=round(pause, 1))
        except StoreUnavailableError as error:
            result = "store-unavailable"
            log.warning(
                "store does not answer", error=error.message, again_in_seconds=round(self.queue.add_failed(key), 1)
            )
        except Exception:
            result = "error"
            log.exception("pass failed", again_in_seconds=round(self.queue.add_failed(key), 1))
        self.metrics.reconciles.labels(result).inc()
        seconds = time.monotonic() - began
        self.metrics.reconcile_seconds.observe(seconds)
        self.metrics.reconcile_own_seconds.observe(max(0.0, seconds - self.metrics.take_api_seconds()))

    def _gain(self) -> None:
        self.log.info("leading", identity=self.options.identity)
        self.metrics.is_leader.set(1)
        self._leads.set()

    def _lose(self) -> None:
        """Nothing is worth guessing about: leave, and let the next process begin from what is there."""
        self.metrics.is_leader.set(0)
        self._has_lost = True
        self.stop.set()

    def _ended(self, job: JobFacts, pods: tuple[PodFacts, ...], now: datetime) -> None:
        """Every replica sees it; the leader counts it."""
        if self.leadership.is_leader():
            self.metrics.on_end(job, pods, now)

    def _restarted(self, why: str) -> None:
        self.metrics.watch_restarts.inc()
        self.log.info("watch", what=why)

    def _thread(self, target: Callable[..., None], name: str, *args: object) -> threading.Thread:
        def guarded() -> None:
            try:
                target(*args)
            except BaseException:
                # A controller that has gone blind or deaf on one ear is worse than none: the next process sees all.
                self.log.exception("thread died", thread=name)
                self._has_died = True
                self.stop.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread
