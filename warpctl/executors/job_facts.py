"""What a Job and its pods say, made small: the part of them that decides, and the words that explain. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from warpctl import names
from warpctl.errors import EXIT_FINAL, EXIT_INTERRUPTED
from warpctl.plan.observed import Attempt, AttemptState, FailureClass
from warpctl.render.failure_policy import class_of_rule
from warpctl.spec.stage_input import StageKind

Object = Mapping[str, Any]

KILLED = 137
"""128 + SIGKILL: what the kernel's OOM killer and an impatient kubelet leave."""
TERMINATED = 143
"""128 + SIGTERM."""
RULE = re.compile(r"FailJob rule at index (\d+)")
NEVER_STARTS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError"}
)


@dataclass(frozen=True, slots=True)
class JobFacts:
    """One attempt's Job."""

    namespace: str
    name: str
    uid: str
    owner_uid: str
    run: str
    key: str
    storage: str
    number: int
    gpus: int
    state: AttemptState
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    reason: str
    message: str
    """What its Failed condition says."""
    is_deleting: bool
    is_suspended: bool
    """By Kueue, until it is admitted."""
    nodes: int
    has_expiry: bool
    """Whether it goes by itself some time after its end."""
    labels: Mapping[str, str]
    """Its own, for its Service; {} with one node, which needs none."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """One pod of a Job."""

    namespace: str
    name: str
    uid: str
    job_uid: str
    index: int
    created_at: datetime
    started_at: datetime | None
    is_running: bool
    waits_for: str
    """Why it does not run yet; "" when it does, or when nobody says."""
    exit_code: int | None
    ended_because: str
    """Kubernetes' word for the end of its container: OOMKilled, Error, Completed."""
    said: str
    """The last lines of its log, as the kubelet kept them."""
    is_disrupted: bool
    gone_at: datetime | None = None
    """When it was deleted; its Job is still there."""


def job_facts(job: Object) -> JobFacts:
    """From a Job as the API server sends it."""
    metadata, spec, status = job["metadata"], job.get("spec", {}), job.get("status", {})
    nodes = spec.get("completions") or 1
    notes, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    owners = [owner for owner in metadata.get("ownerReferences", ()) if owner.get("controller")]
    conditions = {each["type"]: each for each in status.get("conditions") or () if each["status"] == "True"}
    # Complete and Failed only: FailureTarget and SuccessCriteriaMet come while pods still run.
    last = conditions.get("Complete") or conditions.get("Failed")
    state = AttemptState.ACTIVE
    if last is not None:
        state = AttemptState.COMPLETE if last["type"] == "Complete" else AttemptState.FAILED
    return JobFacts(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uid=owners[0]["uid"] if owners else "",
        run=labels.get(names.RUN, ""),
        key=notes.get(names.STAGE_KEY, ""),
        storage=notes.get(names.STORAGE, ""),
        number=int(labels.get(names.ATTEMPT, "1")),
        gpus=int(notes.get(names.GPUS, "0")),
        state=state,
        created_at=_time(metadata["creationTimestamp"]),
        started_at=_time_or_none(status.get("startTime")),
        ended_at=_time(last["lastTransitionTime"]) if last else None,
        reason=last.get("reason", "") if last else "",
        message=last.get("message", "")[:512] if last else "",
        is_deleting="deletionTimestamp" in metadata,
        is_suspended=bool(spec.get("suspend")),
        nodes=nodes,
        has_expiry="ttlSecondsAfterFinished" in spec,
        labels=labels if nodes > 1 else {},
    )


def pod_facts(pod: Object) -> PodFacts:
    """From a Pod as the API server sends it."""
    metadata, status = pod["metadata"], pod.get("status", {})
    labels = metadata.get("labels") or {}
    containers = status.get("containerStatuses") or [{}]
    state = containers[0].get("state", {})
    ended, running = state.get("terminated"), state.get("running")
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    return PodFacts(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        job_uid=labels.get(names.JOB_UID_LABEL, ""),
        index=int(labels.get(names.INDEX_LABEL, "0")),
        created_at=_time(metadata["creationTimestamp"]),
        started_at=_time_or_none((running or ended or {}).get("startedAt")),
        is_running=running is not None,
        waits_for="" if running or ended else _waits_for(conditions, state.get("waiting") or {}),
        exit_code=ended.get("exitCode") if ended else None,
        ended_because=ended.get("reason", "") if ended else str(status.get("reason", "")),
        said=(ended.get("message") or "")[-2048:] if ended else "",
        is_disrupted=conditions.get("DisruptionTarget", {}).get("status") == "True",
    )


def attempt(job: JobFacts, pods: Iterable[PodFacts], now: datetime, *, refused: str = "") -> Attempt:
    """One attempt, from its Job and what is left of its pods; `refused`: why its pods could not be created."""
    mine = sorted(pods, key=lambda pod: (pod.index, -pod.created_at.timestamp()))
    failed = job.state is AttemptState.FAILED
    failure, exit_code, message = _failure(job, mine) if failed else (None, None, "")
    starts = [pod.started_at for pod in mine if pod.started_at]
    began = min(starts, default=job.started_at or job.created_at)
    # Before any container runs nothing is used; a Job whose pods are gone is charged from its start.
    is_charged = bool(starts) or job.state is not AttemptState.ACTIVE
    went = [pod.gone_at for pod in mine if pod.gone_at]
    ended = job.ended_at or (max(went) if went and len(went) == len(mine) else now)
    is_active = job.state is AttemptState.ACTIVE
    return Attempt(
        key=job.key,
        number=job.number,
        attempt_id=_attempt_id(job, mine),
        state=job.state,
        started_at=began,
        ended_at=job.ended_at,
        failure=failure,
        exit_code=exit_code,
        message=message,
        is_stopping=job.is_deleting and not failed,
        gpu_seconds=job.gpus * max(0.0, (ended - began).total_seconds()) if is_charged else 0.0,
        waits_for=_why_waiting(job, mine, refused) if is_active and not job.is_deleting else "",
        id_prefix=names.attempt_id_prefix(job.number, job.uid),
        is_shared_out=job.nodes > 1 and names.kind_of_job(job.name) == StageKind.MERGE,
    )


def _attempt_id(job: JobFacts, pods: list[PodFacts]) -> str:
    """The id under which the pod of index 0 writes; that of the Job alone while there is none."""
    if not pods:
        return names.attempt_id_prefix(job.number, job.uid).removesuffix("-")
    return names.attempt_id(job.number, job.uid, pods[0].index, pods[0].uid)


def _failure(job: JobFacts, pods: list[PodFacts]) -> tuple[FailureClass, int | None, str]:
    """Class, exit code and words of a failed Job. Its own condition names the rule that failed it, also without pods."""
    failing = [pod for pod in pods if pod.exit_code not in (None, 0)]
    # The others leave because the first has gone, whose words explain it.
    bad = next((pod for pod in failing if pod.ended_because == "OOMKilled"), failing[0] if failing else None)
    code = bad.exit_code if bad else None
    if bad is not None and bad.ended_because == "OOMKilled":
        stage_kind = names.kind_of_job(job.name)
        hint = f"raise spec.compute.{stage_kind}.memory" + (" or lower the batch" if stage_kind == "rl" else "")
        return FailureClass.INFRASTRUCTURE, code, f"out of memory: its container was killed ({hint})"
    rule = RULE.search(job.message)
    kind = class_of_rule(int(rule[1])) if rule else _class_of_code(code)
    if any(pod.is_disrupted for pod in pods) and kind is FailureClass.APPLICATION:
        kind = FailureClass.INFRASTRUCTURE
    if kind is FailureClass.INFRASTRUCTURE and not (bad and bad.said):
        return kind, code, f"its pod was lost: {job.message or job.reason or 'no reason given'}"
    said = _last_words(bad.said) if bad and bad.said else job.message or job.reason
    return kind, code, f"exit code {code}: {said}" if code is not None else said


def _class_of_code(code: int | None) -> FailureClass:
    if code == EXIT_FINAL:
        return FailureClass.FINAL
    if code in (EXIT_INTERRUPTED, TERMINATED, KILLED):
        return FailureClass.INFRASTRUCTURE  # nobody here asked it to stop: that would have deleted the Job
    return FailureClass.APPLICATION


def _last_words(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return " / ".join(lines[-3:])[-400:] if lines else "it said nothing"


def _why_waiting(job: JobFacts, pods: list[PodFacts], refused: str) -> str:
    if job.is_suspended:
        return "queued: Kueue has not admitted its Job yet"
    reasons = [pod.waits_for for pod in pods if pod.waits_for]
    if reasons:  # though others run: they wait for this one
        return reasons[0]
    return "" if any(pod.is_running for pod in pods) else refused


def _waits_for(conditions: Mapping[str, Object], waiting: Object) -> str:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"cannot be scheduled: {scheduled.get('message') or scheduled.get('reason') or 'no reason given'}"[:400]
    reason = waiting.get("reason", "")
    if reason in NEVER_STARTS:
        return f"{reason}: {waiting.get('message') or 'no reason given'}"[:400]
    return ""


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _time_or_none(text: str | None) -> datetime | None:
    return _time(text) if text else None
