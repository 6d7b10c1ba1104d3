"""Which point of a run is exported, and what it is made from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from warpctl.cli.output import yaml_text
from warpctl.cli.run_reference import RunReference
from warpctl.errors import UserError
from warpctl.plan.observed import Observed
from warpctl.plan.stages import SFT, StageGraph, merge_id, rl_id, stages
from warpctl.reports.best import best_entry
from warpctl.spec.base import DECIMAL_PATTERN
from warpctl.spec.decimals import decimal_text
from warpctl.spec.stage_input import InputArtifact
from warpctl.spec.warp_run import WarpRun
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
    why: str = ""
    """How it was chosen, where it was."""


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
    """The run's own best point with at most this KL (reports/best.py), among those whose weights exist."""
    max_kl = _number(text, "--max-kl")
    if max_kl < 0:
        raise UserError(
            f"--max-kl must not be negative, got {text}", hint="it is in nats per completion: --max-kl 10, for example"
        )
    front = reference.front() or {"points": [], "measures": []}
    points = [each for each in front["points"] if not each["control"] and each["iteration"]]
    if not points:
        raise UserError(
            "the run has no evaluated points yet",
            hint=f"`warpctl status {reference.typed}`; --liti-rate needs no evaluation",
        )
    graph = stages(reference.run, observed.imported())

    def is_available(entry: Mapping[str, Any]) -> bool:
        is_trained = bool(entry["iteration"]) and not entry["control"]
        return is_trained and _is_there(graph, observed, _point_of(entry).stage_id)

    first = best_entry(front, max_kl=float(max_kl))
    chosen = best_entry(front, max_kl=float(max_kl), is_available=is_available)
    allowed = [each for each in points if each["kl"]["mean"] <= max_kl]
    if not allowed:
        lowest = min(points, key=lambda each: each["kl"]["mean"])
        raise UserError(
            f"no point has a KL of at most {text} nats",
            hint=f"the lowest is {lowest['kl']['mean']:.3g} nats: iteration {lowest['iteration']}, {lowest['label']}",
        )
    if chosen is None or first is None:
        raise UserError(
            f"the weights of all {len(allowed)} points with a KL of at most {text} nats were collected",
            hint="spec.retention decides what stays; a larger --max-kl may reach points that are still there",
        )
    return replace(_point_of(chosen.entry), why=f"{chosen.why}{_passed_over(first.entry, chosen.entry)}")


def _passed_over(first: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    """Why the best point of all is not the one that is exported."""
    if first is chosen:
        return ""
    if not first["iteration"]:
        return "; by it the SFT policy itself is better than any of them"
    return f"; the weights of a better one, {_name(first)}, were collected"


def _name(entry: Mapping[str, Any]) -> str:
    return f"iteration {entry['iteration']}, {entry['label']}" if entry["iteration"] else str(entry["label"])


def _point_of(entry: Mapping[str, Any]) -> Point:
    iteration, name = int(entry["iteration"]), str(entry["name"])
    if name.startswith("member/"):
        member = int(name.removeprefix("member/"))
        return Point(entry["label"], iteration, rl_id(iteration, member), f"RL run {member}", "", Decimal(1), entry)
    rate = Decimal(entry["litiRate"])
    return Point(entry["label"], iteration, merge_id(iteration), "merged policy", "merged/", rate, entry)


def export_task(
    reference: RunReference,
    observed: Observed,
    point: Point,
    *,
    destination: str,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> ExportTask:
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
        "heldOut": estimates.get("heldOut"),
        "why": point.why,
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
        dtype=dtype,
        card=card,
        spec=yaml_text(shared_spec(reference.run)),
        front=front,
    )


def shared_spec(run: WarpRun) -> dict[str, Any]:
    """The WarpRun as it may leave the house: without podTemplates, whose environment may hold what nobody else should read."""
    document = run.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"status"})
    for compute in document["spec"].get("compute", {}).values():
        if isinstance(compute, dict):
            compute.pop("podTemplate", None)
    return document


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
