"""One pass of a run: observe, plan, perform, summarise. The same for every executor, and safe to kill at any instant:
everything that matters is in the store, and the next pass begins by looking there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from warpctl import artifacts
from warpctl.executors.base import Executor
from warpctl.plan.actions import Action, Collect, Forget, Start, Stop, WriteRoots
from warpctl.plan.observed import Attempt, Committed, Observed
from warpctl.plan.planner import plan
from warpctl.plan.progress import summarise
from warpctl.plan.stages import import_stages, stages
from warpctl.spec.stage_input import StageKind
from warpctl.spec.status import RunStatus
from warpctl.spec.warp_run import WarpRun
from warpctl.storage.gc import plan_gc, sweep
from warpctl.storage.markers import Marker, Markers
from warpctl.storage.store import Store
from warpctl.storage.wanted import Wanted, WantedStage, read_wanted, write_wanted


@dataclass
class Engine:
    """Drives one run. Between passes it keeps only what spares reads: markers that were seen, roots that were written,
    stages that were swept.
    """

    run: WarpRun
    executor: Executor
    store: Store
    retry_since: datetime | None = None
    markers: Markers = field(init=False)
    _roots_digest: str | None = None
    _swept: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.markers = Markers(self.store)

    def tick(self, now: datetime) -> RunStatus:
        """One pass; what it returns is what it saw, before what it did."""
        observed = self.observe()
        for action in plan(self.run, observed, now):
            self.perform(action, now)
        return summarise(self.run, observed, now)

    def observe(self) -> Observed:
        """Attempts first, markers after them: a marker that is absent behind a finished attempt is absent for good."""
        attempts = self.executor.attempts()
        imports = self._look({stage.key: stage.kind for stage in import_stages(self.run).values()}, attempts)
        whole = {key: marker.manifest.content_digest for key, marker in imports.items() if marker.is_whole}
        graph = stages(self.run, whole)
        seen = imports | self._look({stage.key: stage.kind for stage in graph.stages.values()}, attempts)
        return Observed(
            committed={key: _committed(marker) for key, marker in seen.items()},
            broken=frozenset(key for key, marker in seen.items() if not marker.is_whole),
            attempts=attempts,
            retry_since=self.retry_since,
            roots_digest=self._written_roots(),
        )

    def perform(self, action: Action, now: datetime) -> None:
        """Do one thing that was planned."""
        match action:
            case WriteRoots():
                self._write_roots(action, now)
            case Start():
                # Read once more before creating: another run may have published the stage since the pass began.
                if self.markers.read(action.stage.kind, action.stage.key) is None:
                    self.executor.start(action)
                else:
                    self.markers.forget(action.stage.key)
            case Stop():
                self.executor.stop(action.attempt, action.reason)
            case Forget():
                self.store.delete(artifacts.marker(action.stage.kind, action.stage.key))
                self._forget(action.stage.key)
            case Collect():
                self._collect(action, now)

    def _collect(self, action: Collect, now: datetime) -> None:
        """Sweep once a session: what another run wants stays, and stays planned here."""
        names = {(str(root.kind), root.key) for root in action.roots} - self._swept
        if names:
            sweep(self.store, plan_gc(self.store, now=now, min_age=timedelta(0), only=names))
            self._swept |= names
        for _, key in names:
            self._forget(key)

    def _look(self, kinds: Mapping[str, str], attempts: Mapping[str, tuple[Attempt, ...]]) -> dict[str, Marker]:
        tokens = {key: tuple((a.attempt_id, a.state) for a in attempts.get(key, ())) for key in kinds}
        return self.markers.look(kinds, tokens)

    def _forget(self, key: str) -> None:
        self.markers.forget(key)
        self.executor.forget(key)

    def _written_roots(self) -> str:
        if self._roots_digest is None:
            wanted = read_wanted(self.store, self.run.metadata.namespace, self.run.metadata.name)
            self._roots_digest = wanted.generation_digest if wanted else ""
        return self._roots_digest

    def _write_roots(self, action: WriteRoots, now: datetime) -> None:
        wanted = Wanted(
            namespace=self.run.metadata.namespace,
            name=self.run.metadata.name,
            generation_digest=action.digest,
            stages=tuple(WantedStage(kind=StageKind(root.kind), key=root.key) for root in action.roots),
            written_at=now.astimezone(UTC).isoformat(),
        )
        write_wanted(self.store, wanted)
        self._roots_digest = action.digest


def _committed(marker: Marker) -> Committed:
    manifest = marker.manifest
    return Committed(
        manifest_digest=manifest.digest,
        content_digest=manifest.content_digest,
        attempt_id=manifest.attempt_id,
        parents={parent.role: parent.content_digest for parent in manifest.parents},
        gpu_seconds=manifest.gpu_seconds,
        ended_at=manifest.ended_at,
    )
