"""One pass of a run: observe, plan, perform, summarise. The same for every executor, and safe to kill at any instant:
everything that matters is in the store, and the next pass begins by looking there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from warpctl import artifacts
from warpctl.executors.base import Executor, StartRefusedError
from warpctl.plan.actions import Action, Collect, Forget, Show, Start, Stop, WriteRoots
from warpctl.plan.observed import Attempt, Committed, Observed, Root
from warpctl.plan.planner import plan
from warpctl.plan.progress import summarise
from warpctl.plan.stages import StageGraph, import_stages, stages
from warpctl.spec.stage_input import StageKind
from warpctl.spec.status import RunStatus
from warpctl.spec.warp_run import WarpRun
from warpctl.storage.gc import plan_gc, sweep
from warpctl.storage.markers import Marker, Markers
from warpctl.storage.store import Store
from warpctl.storage.views import Views
from warpctl.storage.wanted import Keep, Wanted, WantedStage, read_wanted, write_wanted


@dataclass
class Engine:
    """Drives one run. Between passes it keeps only what spares reads: markers that were seen, roots that were written,
    stages that were swept.
    """

    run: WarpRun
    executor: Executor
    store: Store
    retry_since: datetime | None = None
    earlier_gpu_seconds: float = 0.0
    """Of attempts that the executor no longer sees."""
    refused: dict[str, str] = field(default_factory=dict)
    """Stage key -> why its attempt could not be started in the last pass."""
    markers: Markers = field(init=False)
    views: Views = field(init=False)
    _roots: frozenset[Root] | None = None
    _swept: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.markers = Markers(self.store)
        self.views = Views(self.store, self.run.metadata.namespace, self.run.metadata.name)

    def tick(self, now: datetime) -> RunStatus:
        """One pass; what it returns is what it saw, before what it did."""
        observed, graph = self._observe()
        self.refused = {}
        for action in plan(self.run, observed, now, graph=graph):
            self.perform(action, now)
        return summarise(self.run, replace(observed, refused=self.refused), now, graph=graph)

    def look_anew(self) -> None:
        """Believe no marker that was seen: what was published may have been lost since."""
        self.markers = Markers(self.store)

    def observe(self) -> Observed:
        """What there is now."""
        return self._observe()[0]

    def _observe(self) -> tuple[Observed, StageGraph]:
        """Attempts first, markers after them: a marker that is absent behind a finished attempt is absent for good."""
        attempts = self.executor.attempts()
        imports = self._look({stage.key: stage.kind for stage in import_stages(self.run).values()}, attempts)
        whole = {key: marker.content_digest for key, marker in imports.items() if marker.is_whole}
        graph = stages(self.run, whole)
        seen = imports | self._look({stage.key: stage.kind for stage in graph.stages.values()}, attempts)
        observed = Observed(
            committed={key: _committed(marker) for key, marker in seen.items()},
            broken=frozenset(key for key, marker in seen.items() if not marker.is_whole),
            attempts=attempts,
            retry_since=self.retry_since,
            roots=self._written_roots(),
            earlier_gpu_seconds=self.earlier_gpu_seconds,
            shown_report=self.views.shown(),
        )
        return observed, graph

    def perform(self, action: Action, now: datetime) -> None:
        """Do one thing that was planned."""
        match action:
            case WriteRoots():
                self._write_roots(action, now)
            case Start():
                # Read once more before creating: another run may have published the stage since the pass began.
                if self.markers.read(action.stage.kind, action.stage.key) is None:
                    self._start(action)
                else:
                    self.markers.forget(action.stage.key)
            case Stop():
                self.executor.stop(action.attempt, action.reason)
            case Forget():
                self.store.delete(artifacts.marker(action.stage.kind, action.stage.key))
                self.markers.forget(action.stage.key)
                self.executor.forget(action.stage.key)
            case Collect():
                self._collect(action, now)
            case Show():
                self.views.show(action.stage.kind, action.stage.key)

    def _start(self, start: Start) -> None:
        """One that may not be made holds up no other."""
        try:
            self.executor.start(start)
        except StartRefusedError as error:
            self.refused[start.stage.key] = error.message

    def _collect(self, action: Collect, now: datetime) -> None:
        """Sweep once a session: what another run wants stays, and stays planned here."""
        names = {(str(root.kind), root.key) for root in action.roots} - self._swept
        if names:
            sweep(self.store, plan_gc(self.store, now=now, min_age=timedelta(0), only=names))
            self._swept |= names
        for _, key in names:
            self.markers.forget(key)  # its files are gone, its marker stays

    def _look(self, kinds: Mapping[str, str], attempts: Mapping[str, tuple[Attempt, ...]]) -> dict[str, Marker]:
        tokens = {key: tuple((a.attempt_id, a.state) for a in attempts.get(key, ())) for key in kinds}
        return self.markers.look(kinds, tokens)

    def _written_roots(self) -> frozenset[Root]:
        if self._roots is None:
            wanted = read_wanted(self.store, self.run.metadata.namespace, self.run.metadata.name)
            stages = wanted.stages if wanted else ()
            self._roots = frozenset(Root(stage.kind, stage.key, stage.keep is Keep.ARTIFACT) for stage in stages)
        return self._roots

    def _write_roots(self, action: WriteRoots, now: datetime) -> None:
        stages = tuple(
            WantedStage(kind=StageKind(root.kind), key=root.key, keep=Keep.ARTIFACT if root.is_whole else Keep.RECORD)
            for root in action.roots
        )
        wanted = Wanted(
            namespace=self.run.metadata.namespace,
            name=self.run.metadata.name,
            stages=stages,
            written_at=now.astimezone(UTC).isoformat(),
        )
        write_wanted(self.store, wanted)
        self._roots = frozenset(action.roots)


def _committed(marker: Marker) -> Committed:
    return Committed(
        manifest_digest=marker.manifest_digest,
        content_digest=marker.content_digest,
        attempt_id=marker.attempt_id,
        parents=marker.parents,
        gpu_seconds=marker.gpu_seconds,
        ended_at=marker.ended_at,
    )
