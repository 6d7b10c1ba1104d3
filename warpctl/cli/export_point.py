"""Which point of a run is exported, and what it is made from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from warpctl.cli.run_reference import RunReference
from warpctl.errors import UserError
from warpctl.plan.observed import Observed
from warpctl.plan.stages import SFT, StageGraph, merge_id, rl_id, stages
from warpctl.spec.base import DECIMAL_PATTERN, decimal_text
from warpctl.spec.stage_input import InputArtifact
from warpctl.workers.export import ExportTask

MAX_RATE = Decimal(2)


@dataclass(frozen=True, slots=True)
class Point:
    """A point to export; `stage_id` publishes its source, `estimates` is its entry in front.json if it was evaluated."""

    label: str
    iteration: int
    stage_id: str
    source: str
    prefix: str
    liti_rate: Decimal
    estimates: Mapping[str, Any] | None = None


def choose_by_rate(reference: RunReference, observed: Observed, text: str, iteration: int) -> Point:
    """(1 - rate) sft + rate merged of an iteration, by default the last one that is merged."""
    rate = _number(text, "--liti-rate")
    if not 0 < rate <= MAX_RATE:
        raise UserError(
            f"--liti-rate must be in (0, {MAX_RATE}], got {text}",
            hint="0 is the SFT policy itself, 1 the merged policy",
        )
    graph = stages(reference.run, observed.imported())
    last = reference.run.spec.iterations
    if iteration > last:
        raise UserError(f"the run has {last} iterations, --iteration asks for {iteration}")
    wanted = [iteration] if iteration else range(last, 0, -1)
    merged = [number for number in wanted if _is_there(graph, observed, merge_id(number))]
    if not merged:
        what = f"iteration {iteration} is" if iteration else "no iteration is"
        raise UserError(
            f"{what} not merged yet, or its weights were collected" if iteration else f"{what} merged yet",
            hint=f"`warpctl status {reference.typed}` shows how far the run is",
        )
    name = f"liti/{decimal_text(rate)}"
    entries = [each for each in _points(reference) if each["iteration"] == merged[0] and each["name"] == name]
    label = "merged policy" if rate == 1 else f"LITI {decimal_text(rate)}"
    return Point(
        label, merged[0], merge_id(merged[0]), "merged policy", "merged/", rate, entries[0] if entries else None
    )


def choose_by_kl(reference: RunReference, observed: Observed, text: str) -> Point:
    """The run's own evaluated point of highest reward whose KL is at most this, among those whose weights exist."""
    max_kl = _number(text, "--max-kl")
    points = [each for each in _points(reference) if not each["control"] and each["iteration"]]
    if not points:
        raise UserError(
            "the run has no evaluated points yet",
            hint=f"`warpctl status {reference.typed}`; --liti-rate needs no evaluation",
        )
    allowed = [each for each in points if each["kl"]["mean"] <= float(max_kl)]
    if not allowed:
        lowest = min(points, key=lambda each: each["kl"]["mean"])
        raise UserError(
            f"no point has a KL of at most {text} nats",
            hint=f"the lowest is {lowest['kl']['mean']:.3g} nats: iteration {lowest['iteration']}, {lowest['label']}",
        )
    graph = stages(reference.run, observed.imported())
    for each in sorted(allowed, key=lambda each: (-each["reward"]["mean"], each["kl"]["mean"])):
        point = _point_of(each)
        if _is_there(graph, observed, point.stage_id):
            return point
    raise UserError(
        f"the weights of all {len(allowed)} points with a KL of at most {text} nats were collected",
        hint="spec.retention decides what stays; a larger --max-kl may reach points that are still there",
    )


def _point_of(entry: Mapping[str, Any]) -> Point:
    iteration, name = int(entry["iteration"]), str(entry["name"])
    if name.startswith("member/"):
        member = int(name.removeprefix("member/"))
        return Point(entry["label"], iteration, rl_id(iteration, member), f"RL run {member}", "", Decimal(1), entry)
    rate = Decimal(entry["litiRate"])
    return Point(entry["label"], iteration, merge_id(iteration), "merged policy", "merged/", rate, entry)


def export_task(reference: RunReference, observed: Observed, point: Point, *, destination: str) -> ExportTask:
    """Everything pinned by digest."""
    graph = stages(reference.run, observed.imported())
    source = _artifact(graph, observed, point.stage_id, "source")
    sft = _artifact(graph, observed, SFT, "sft")
    front = reference.front()
    spec, estimates = reference.run.spec, point.estimates or {}
    card = {
        "run": reference.run.full_name,
        "point": f"iteration {point.iteration}, {point.label}",
        "source": point.source,
        "isMerged": bool(point.prefix),
        "litiRate": decimal_text(point.liti_rate),
        "iteration": point.iteration,
        "iterations": spec.iterations,
        "rlRuns": spec.rl_runs,
        "sftUri": spec.models.sft.uri if spec.models.sft.uri.startswith("hf://") else "",
        "digests": {"SFT policy": sft.manifest_digest, point.source: source.manifest_digest},
        "kl": estimates.get("kl"),
        "reward": estimates.get("reward"),
        "confidenceLevel": (front or {}).get("confidenceLevel"),
    }
    return ExportTask(
        storage=reference.store.root,
        destination=destination,
        sft=sft,
        source=source,
        source_prefix=point.prefix,
        files=source,
        files_prefix=point.prefix,
        liti_rate=point.liti_rate,
        card=card,
    )


def _points(reference: RunReference) -> list[Mapping[str, Any]]:
    return list((reference.front() or {}).get("points", ()))


def _is_there(graph: StageGraph, observed: Observed, stage_id: str) -> bool:
    return stage_id in graph.stages and observed.is_committed(graph.stages[stage_id].key)


def _artifact(graph: StageGraph, observed: Observed, stage_id: str, role: str) -> InputArtifact:
    stage = graph.stages[stage_id]
    committed = observed.committed[stage.key]
    return InputArtifact(
        role=role,
        kind=stage.kind,
        key=stage.key,
        manifest_digest=committed.manifest_digest,
        content_digest=committed.content_digest,
    )


def _number(text: str, option: str) -> Decimal:
    if not re.fullmatch(DECIMAL_PATTERN, text):
        raise UserError(f'{option} must be a number, got "{text}"', hint=f"for example: {option} 0.3")
    return Decimal(text)
