"""Logs of a cluster run: from its pods while they are there, from the store once they are gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from warpctl.cli.cluster_run import ClusterRun, has_stalled, look_at_jobs, refreshed
from warpctl.cli.log_sources import Wanted, chosen, stored_logs, wanted_stages
from warpctl.cli.log_stream import is_one_stage, print_log
from warpctl.controller.world import Cluster
from warpctl.errors import UserError
from warpctl.executors.job_facts import JobFacts, PodFacts, pod_facts
from warpctl.kube.errors import ClusterError, ClusterUnavailableError
from warpctl.kube.resources import PODS
from warpctl.plan.observed import Attempt, Observed
from warpctl.plan.progress import summarise
from warpctl.plan.stages import Stage
from warpctl.render.failure_policy import CONTAINER
from warpctl.spec.status import SUCCEEDED, SUSPENDED, StageState

PAUSE_SECONDS = 1.0
SILENCE_SECONDS = 60.0
"""Workers say how far they are every ten seconds; a longer silence may be a connection that is only half open."""


@dataclass(frozen=True, slots=True)
class PodLog:
    """The log of one pod; `label` is the stage, with the pod's index where there are several."""

    label: str
    pod: PodFacts


def print_pods(reference: ClusterRun, wanted: Wanted, node: int) -> None:
    """Every wanted log from its beginning; UserError when there is none yet."""
    world = look_at_jobs(reference.connection, reference.namespace)
    observed = reference.engine_over(world).observe()
    found: list[tuple[str, bytes]] = []
    for stage in wanted_stages(reference, observed, wanted):
        logs = [(each.label, _read(reference, each.pod)) for each in _pod_logs(world, stage, observed, wanted, node)]
        said = [(label, text.encode()) for label, text in logs if text is not None]
        found += said or [
            (each.stage_id, reference.store.read_or_none(each.path) or b"")
            for each in stored_logs(reference, stage, observed, wanted)
        ]
    if not found:
        which = f"attempt {wanted.number} of " if wanted.number else ""
        raise UserError(
            f"there is no log of {which}{wanted.stage or 'any stage'} yet",
            hint=f"`warpctl status {reference.typed} --cluster` lists stages and attempts",
        )
    for label, data in found:
        print_log(label, data, has_prefix=len(found) > 1)


def follow_pods(reference: ClusterRun, wanted: Wanted, node: int) -> None:
    """Print what is there and what comes, until the wanted stages are published or nothing goes on."""
    streams: dict[str, _Stream] = {}
    while True:
        reference = refreshed(reference)
        world = look_at_jobs(reference.connection, reference.namespace)
        observed = reference.engine_over(world).observe()
        own = wanted_stages(reference, observed, wanted)
        for stage in own:
            for log in _pod_logs(world, stage, observed, wanted, node):
                if log.pod.uid not in streams and (log.pod.is_running or log.pod.exit_code is not None):
                    has_prefix = log.label != stage.id or not is_one_stage(reference, observed, wanted)
                    streams[log.pod.uid] = _Stream(reference, log, has_prefix=has_prefix)
        if not _goes_on(reference, observed, {stage.id for stage in own}):
            break
        time.sleep(PAUSE_SECONDS)
    for stream in streams.values():
        stream.thread.join()


def _goes_on(reference: ClusterRun, observed: Observed, wanted: set[str]) -> bool:
    status = reference.seen(summarise(reference.run, observed, reference.connection.api.server_time()))
    own = [stage for stage in status.stages if stage.id in wanted]
    if any(stage.state is StageState.RUNNING for stage in own):
        return True
    if status.is_true(SUCCEEDED) or status.is_true(SUSPENDED) or has_stalled(status):
        return False
    return not own or any(stage.state not in (StageState.SUCCEEDED, StageState.STALLED) for stage in own)


def _pod_logs(world: Cluster, stage: Stage, observed: Observed, wanted: Wanted, node: int) -> Iterator[PodLog]:
    attempt = chosen(observed.attempts.get(stage.key, ()), wanted)
    job = _job_of(world, attempt) if attempt else None
    if job is None:
        return
    pods = sorted(world.pods_of(job.uid), key=lambda pod: pod.index)
    for pod in pods:
        if node in (-1, pod.index):
            yield PodLog(f"{stage.id}#{pod.index}" if job.nodes > 1 else stage.id, pod)


def _job_of(world: Cluster, attempt: Attempt) -> JobFacts | None:
    jobs = (job for job in world.jobs.items() if job.key == attempt.key and job.number == attempt.number)
    return next(jobs, None)


def _read(reference: ClusterRun, pod: PodFacts) -> str | None:
    """The whole log; None where the pod has none yet, or its node none any more."""
    try:
        return reference.connection.api.text(
            PODS.path(pod.namespace, pod.name, "log"),
            query={"container": CONTAINER},
            what=f"read the log of pod {pod.name}",
        )
    except ClusterError as error:
        if error.is_forbidden or not error.code:  # not the node, but the API server does not answer
            raise
        return None


@dataclass
class _Stream:
    """Prints one pod's log as it grows, in a thread of its own."""

    reference: ClusterRun
    log: PodLog
    has_prefix: bool
    thread: threading.Thread = field(init=False)
    _last: str = ""
    """When the last line was written that has been printed."""

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._print, daemon=True)
        self.thread.start()

    def _print(self) -> None:
        try:
            while not self._read_on():
                time.sleep(PAUSE_SECONDS)
        except ClusterError as error:
            print_log(self.log.label, f"({error.message})".encode(), has_prefix=self.has_prefix)

    def _read_on(self) -> bool:
        """Print what comes after the last line that was printed; False where the stream broke and the container may go on."""
        try:
            self._print_lines(is_following=True)
            # A stream that was cut on its way may end as cleanly as one whose container has ended.
            pod = self.reference.connection.api.get(PODS, self.log.pod.namespace, self.log.pod.name)
            if pod is not None and pod_facts(pod).is_running:
                return False
            if pod is not None:
                self._print_lines(is_following=False)
        except ClusterUnavailableError:
            return False
        return True

    def _print_lines(self, *, is_following: bool) -> None:
        pod = self.log.pod
        query = {"container": CONTAINER, "timestamps": "true"}
        query |= {"follow": "true"} if is_following else {}
        query |= {"sinceTime": self._last} if self._last else {}
        lines = self.reference.connection.api.lines(
            PODS.path(pod.namespace, pod.name, "log"),
            query=query,
            what=f"follow the log of pod {pod.name}",
            silence_seconds=SILENCE_SECONDS,
        )
        for stamped in lines:
            stamp, _, line = stamped.partition(" ")
            if stamp > self._last:  # sinceTime is cut to seconds; stamps are of one length and one clock
                print_log(self.log.label, line.encode(), has_prefix=self.has_prefix)
                self._last = stamp
