"""From what a pass saw to status and Events. Pure: the pass writes the one and, once that has worked, sends the other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from warpctl.reports.summary import plus_minus
from warpctl.spec.cluster_status import (
    MAX_MESSAGE,
    MAX_STAGES,
    Best,
    ClusterCondition,
    ClusterStage,
    ClusterStatus,
)
from warpctl.spec.reasons import EventReason, Reason
from warpctl.spec.status import (
    READY,
    RECONCILING,
    STALLED,
    SUCCEEDED,
    SUSPENDED,
    Condition,
    ConditionStatus,
    Progress,
    RunStatus,
    StageState,
    StageStatus,
)

Status = Mapping[str, Any]

SHOWN = (StageState.STALLED, StageState.RETRYING, StageState.RUNNING, StageState.QUEUED)
"""States of interest, the ones in trouble first: the list is cut at its end."""
WARNINGS = frozenset({STALLED})


@dataclass(frozen=True, slots=True)
class Transition:
    """One thing that has happened, for an Event."""

    is_warning: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What goes into a status besides the engine's view."""

    generation: int
    spec_digest: str
    handled: str
    ended_gpu_seconds: float
    best: Best | None
    report: str
    ignored: tuple[str, ...] = ()
    """A sentence for each annotation that asks for something in words that mean nothing."""


def cluster_status(status: RunStatus, facts: Facts, before: Status, now: datetime) -> dict[str, Any]:
    """The whole status object; equal to `before` when nothing has changed."""
    shown = sorted((s for s in status.stages if _is_shown(s)), key=lambda stage: SHOWN.index(stage.state))
    return _dump(
        ClusterStatus(
            observed_generation=facts.generation,
            accepted_spec_digest=facts.spec_digest,
            conditions=_conditions(_with_ignored(status.conditions, facts.ignored), facts.generation, before, now),
            iteration=status.iteration,
            iterations=status.iterations,
            iteration_text=f"{status.iteration}/{status.iterations}",
            stages_succeeded=status.stages_succeeded,
            stages_total=status.stages_total,
            stages_text=f"{status.stages_succeeded}/{status.stages_total}",
            stages=tuple(_stage(stage) for stage in shown[:MAX_STAGES]),
            retries=status.retries,
            gpu_hours=f"{status.gpu_hours:.2f}",
            ended_gpu_seconds=f"{facts.ended_gpu_seconds:.0f}",
            best=facts.best,
            report=facts.report,
            handled=facts.handled,
            ignored=tuple(each[:MAX_MESSAGE] for each in facts.ignored),
        )
    )


def refused_status(
    reason: str, message: str, before: Status, *, generation: int, handled: str, now: datetime
) -> dict[str, Any]:
    """A run that cannot be driven now: what it has reached stays as it was, Ready and Stalled say why."""
    text = message[:MAX_MESSAGE]
    facts = {READY: False, RECONCILING: False, STALLED: True, SUSPENDED: False, SUCCEEDED: False}
    return dict(before) | _changed_conditions(facts, (reason, text), before, generation, now) | {"handled": handled}


def unavailable_status(message: str, before: Status, *, generation: int, handled: str, now: datetime) -> dict[str, Any]:
    """A run whose store does not answer now: it goes on by itself. What had stalled or was suspended still is, as far as nothing
    has been asked of the run since.
    """
    old = _by_type(before)
    stands = any(
        old.get(kind, {}).get("status") == "True"
        and old[kind].get("reason") == reason
        and old[kind].get("observedGeneration") == generation
        for kind, reason in ((STALLED, Reason.STAGE_STALLED), (SUSPENDED, Reason.SUSPENDED))
    )
    is_same = stands and before.get("handled", "") == handled
    # Other stages may be at work beside one that has stalled: Reconciling says so, and stays too.
    kept = {kind: old[kind] for kind in (RECONCILING, STALLED, SUSPENDED) if kind in old} if is_same else {}
    facts = {READY: False, RECONCILING: True, STALLED: False, SUSPENDED: False, SUCCEEDED: False}
    why = (Reason.STORE_UNAVAILABLE, message[:MAX_MESSAGE])
    changed = _changed_conditions(facts, why, before, generation, now)
    changed["conditions"] = [kept.get(each["type"], each) for each in changed["conditions"]]
    return dict(before) | changed


def transitions(before: Status, after: Status) -> list[Transition]:
    """What has happened between two statuses, each thing once."""
    old, new = _by_type(before), _by_type(after)
    found = []
    for kind in (SUCCEEDED, STALLED, SUSPENDED):
        is_true = new.get(kind, {}).get("status") == "True"
        was_true = old.get(kind, {}).get("status") == "True"
        if is_true and (not was_true or new[kind]["reason"] != old[kind]["reason"]):
            found.append(Transition(kind in WARNINGS, new[kind]["reason"], new[kind]["message"]))
        elif was_true and not is_true and kind == SUSPENDED:
            found.append(Transition(False, EventReason.RESUMED, "it may run again"))
    if after.get("iteration", 0) > before.get("iteration", 0):
        found.append(Transition(False, EventReason.ITERATION_MERGED, f"iteration {after['iterationText']} is merged"))
    states = {stage["id"]: stage for stage in before.get("stages", ())}
    for stage in after.get("stages", ()):
        was = states.get(stage["id"], {})
        if stage["state"] == StageState.RETRYING and was.get("state") != StageState.RETRYING:
            found.append(Transition(True, EventReason.ATTEMPT_FAILED, f"{stage['id']}: {stage.get('message', '')}"))
        waits = stage["state"] == StageState.QUEUED and stage.get("message", "")
        if waits and was.get("message") != stage["message"]:
            found.append(Transition(True, EventReason.STAGE_WAITS, f"{stage['id']}: {stage['message']}"))
    known = before.get("ignored") or ()
    unknown = (sentence for sentence in after.get("ignored") or () if sentence not in known)
    return [*found, *(Transition(True, EventReason.ANNOTATION_IGNORED, sentence) for sentence in unknown)]


def best_of(document: Mapping[str, Any] | None) -> Best | None:
    """The best point of a front.json, None when there is none within the budget."""
    best = document.get("best") if document else None
    if not document or not best:
        return None
    same = ("iteration", "control", "name")
    point = next((p for p in document["points"] if all(p[part] == best[part] for part in same)), None)
    if point is None:
        return None
    where = f"iteration {point['iteration']}, {point['label']}" if point["iteration"] else point["label"]
    return Best(
        point=where,
        kl=f"{point['kl']['mean']:.2f}",
        reward=plus_minus(point["reward"]),
        reward_name=document["measures"][0],
    )


def number(said: object) -> float:
    """A number that a status says; 0 where another release left something else."""
    try:
        return float(str(said or 0))
    except ValueError:
        return 0.0


def spec_digest(spec: Mapping[str, Any]) -> str:
    """Names a spec in a few characters."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def verbs_digest(verbs: Mapping[str, str]) -> str:
    """Names a set of verbs; "" when there is none."""
    return spec_digest(verbs) if verbs else ""


def progress_text(progress: Progress | None) -> str:
    """`step 412/600`."""
    if progress is None:
        return ""
    figures = "".join(f" {name} {value}" for name, value in sorted(progress.fields.items()) if name == "phase")
    return progress.counted + figures


def _is_shown(stage: StageStatus) -> bool:
    """A stage that only waits for a free place is no news."""
    return stage.state in SHOWN and not (stage.state is StageState.QUEUED and not stage.message)


def _stage(stage: StageStatus) -> ClusterStage:
    return ClusterStage(
        id=stage.id,
        state=stage.state,
        attempts=stage.attempts,
        progress=progress_text(stage.progress),
        message=stage.message[:MAX_MESSAGE],
    )


def _conditions(
    conditions: tuple[Condition, ...], generation: int, before: Status, now: datetime
) -> tuple[ClusterCondition, ...]:
    old = _by_type(before)
    return tuple(
        ClusterCondition(
            type=each.type,
            status=str(each.status),
            reason=each.reason,
            message=each.message[:MAX_MESSAGE],
            observed_generation=generation,
            last_transition_time=_since(old.get(each.type, {}), str(each.status), now),
        )
        for each in conditions
    )


def _with_ignored(conditions: tuple[Condition, ...], ignored: tuple[str, ...]) -> tuple[Condition, ...]:
    """Ready says too what is ignored: it is what people look at. The state comes first, for messages are cut at their end."""
    return tuple(
        each.model_copy(update={"message": "; ".join((each.message, *ignored))}) if each.type == READY else each
        for each in conditions
    )


def _changed_conditions(
    facts: Mapping[str, bool], reason_and_message: tuple[str, str], before: Status, generation: int, now: datetime
) -> dict[str, Any]:
    reason, message = reason_and_message
    conditions = tuple(
        Condition(
            type=kind,
            status=ConditionStatus.TRUE if is_true else ConditionStatus.FALSE,
            reason=reason,
            message=message,
        )
        for kind, is_true in facts.items()
    )
    made = [_dump(each) for each in _conditions(conditions, generation, before, now)]
    return {"conditions": made, "observedGeneration": generation}


def _since(old: Mapping[str, Any], status: str, now: datetime) -> str:
    if old.get("status") == status:
        return str(old["lastTransitionTime"])
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _by_type(status: Status) -> dict[str, Mapping[str, Any]]:
    return {each["type"]: each for each in status.get("conditions") or ()}


def _dump(model: ClusterStatus | ClusterCondition) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
