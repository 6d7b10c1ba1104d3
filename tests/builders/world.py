"""A small world to plan in: a run, a store of markers, attempts that live and die. No I/O, no clock of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from warpctl.plan.actions import Action, Collect, Forget, Show, Start, Stop, WriteRoots
from warpctl.plan.observed import Attempt, AttemptState, Committed, FailureClass, Observed, Root
from warpctl.plan.stages import import_stages
from warpctl.spec.warp_run import WarpRun

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def a_run(*, name: str = "demo", **spec: object) -> WarpRun:
    """A valid run; keyword arguments replace fields of its spec."""
    return WarpRun.model_validate(
        {
            "apiVersion": "warpctl.dev/v1alpha1",
            "kind": "WarpRun",
            "metadata": {"name": name},
            "spec": {
                "storage": {"uri": "/store"},
                "models": {
                    "sft": {"uri": "/sft"},
                    "rewards": [{"type": "Checkpoint", "name": "quality", "uri": "/reward"}],
                },
                "prompts": {"uri": "/prompts"},
                "iterations": 2,
                "rlRuns": 2,
                "training": {"steps": [10]},
                **spec,
            },
        }
    )


def imported(run: WarpRun) -> dict[str, str]:
    """Content digests for all imports of a run."""
    return {stage.key: f"content-of-{stage.key[:8]}" for stage in import_stages(run).values()}


@dataclass
class World:
    """What an executor and a store would hold. `is_repeatable` is false on a GPU: a stage made twice differs in bits."""

    now: datetime = EPOCH
    is_repeatable: bool = True
    committed: dict[str, Committed] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    attempts: dict[str, tuple[Attempt, ...]] = field(default_factory=dict)
    starts: dict[str, Start] = field(default_factory=dict)
    roots: frozenset[Root] = frozenset()
    shown_report: str = ""
    retry_since: datetime | None = None
    history: list[str] = field(default_factory=list)
    publications: list[str] = field(default_factory=list)

    def observe(self) -> Observed:
        return Observed(
            committed=dict(self.committed),
            broken=frozenset(self.broken),
            attempts=dict(self.attempts),
            retry_since=self.retry_since,
            roots=self.roots,
            shown_report=self.shown_report,
        )

    def perform(self, action: Action) -> None:
        """Do what a plan says, and check the laws that hold at every instant."""
        match action:
            case WriteRoots():
                self.roots = frozenset(action.roots)
            case Start():
                self._start(action)
            case Stop():
                self._replace(replace(action.attempt, is_stopping=True))
            case Forget():
                self.committed.pop(action.stage.key, None)
                self.broken.discard(action.stage.key)
                self.attempts.pop(action.stage.key, None)
            case Collect():
                for root in action.roots:
                    assert root in self.roots, "collected what is still wanted whole"
                    assert not self._is_read(root.key), "collected what an attempt reads"
                    self.broken.add(root.key)
            case Show():
                assert action.stage.key in self.committed
                self.shown_report = action.stage.key

    def _is_read(self, key: str) -> bool:
        return any(item.key == key for a in self.active() for item in self.starts[a.attempt_id].inputs)

    def _start(self, start: Start) -> None:
        key = start.stage.key
        assert key not in self.committed, f"{start.stage.id} was started although it is published"
        live = [attempt for attempt in self.attempts.get(key, ()) if attempt.state is AttemptState.ACTIVE]
        assert not live, f"{start.stage.id} has two live attempts"
        for item in start.inputs:
            assert item.key in self.committed, f"{start.stage.id} was started before {item.role} was published"
            assert self.committed[item.key].manifest_digest == item.manifest_digest
            # An evaluation may have the record of a policy that only training could bring back.
            assert item.key not in self.broken or start.stage.kind == "evaluate", f"{item.role} is gone"
        assert Root(start.stage.kind, key) in self.roots, (
            f"{start.stage.id} was started before it was written down as wanted"
        )
        self.history.append(start.stage.id)
        attempt_id = f"{start.number}-{len(self.history)}"
        attempt = Attempt(key, start.number, attempt_id, AttemptState.ACTIVE, started_at=self.now)
        self.attempts[key] = (*self.attempts.get(key, ()), attempt)
        self.starts[attempt_id] = start

    def active(self) -> list[Attempt]:
        return self.observe().active()

    def publish(self, attempt: Attempt) -> None:
        """The worker's commit: the first one wins, whoever comes later finds the marker."""
        start = self.starts[attempt.attempt_id]
        if attempt.key in self.committed:
            return
        self._check_lineage(start)
        self.publications.append(attempt.key)
        made = len(self.publications)
        salt = "" if self.is_repeatable else str(made)
        content = hashlib.sha256(
            (attempt.key + salt + "".join(item.content_digest for item in start.inputs)).encode()
        ).hexdigest()
        self.committed[attempt.key] = Committed(
            manifest_digest=f"manifest-{made}",
            content_digest=content,
            attempt_id=attempt.attempt_id,
            parents={item.role: item.content_digest for item in start.inputs},
        )

    def _check_lineage(self, start: Start) -> None:
        """A merge's members all started from the very init that the merge uses."""
        inputs = {item.role: item for item in start.inputs}
        members = [item for role, item in inputs.items() if role.startswith("member/")]
        if start.stage.kind == "merge":
            for member in members:
                made_from = self.committed[member.key].parents["init"]
                assert made_from == inputs["init"].content_digest, "a merge mixes lineages"
        if start.stage.kind == "evaluate" and "merge" in inputs:
            parents = self.committed[inputs["merge"].key].parents
            for member in members:
                assert parents[member.role] == member.content_digest, "an evaluation mixes lineages"

    def end(self, attempt: Attempt, *, code: int, failure: FailureClass | None = None) -> None:
        """The process ends."""
        state = AttemptState.COMPLETE if code == 0 else AttemptState.FAILED
        self._replace(
            replace(attempt, state=state, ended_at=self.now, exit_code=code, failure=failure, message="it broke")
        )

    def succeed(self, attempt: Attempt) -> None:
        self.publish(attempt)
        self.end(attempt, code=0)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def _replace(self, attempt: Attempt) -> None:
        self.attempts[attempt.key] = tuple(
            attempt if old.attempt_id == attempt.attempt_id else old for old in self.attempts.get(attempt.key, ())
        )
