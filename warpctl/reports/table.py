"""The front as plain rows: one list of columns for the CSV, one nested document for front.json, the page and the CLI."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from warpctl.reports.best import best_point
from warpctl.reports.estimate import LITI_PREFIX, Estimate, Front, FrontPoint
from warpctl.reports.evaluation import SFT_POINT, NamedPoint
from warpctl.spec.decimals import decimal_text

Cell = str | int | float | bool | None
Row = Mapping[str, Cell]


def point_label(named: NamedPoint) -> str:
    """What people call a point: SFT, RL run 2, LITI 0.3; LITI 1 is the merged policy itself."""
    if named.name == SFT_POINT:
        return "SFT"
    if named.name.startswith(LITI_PREFIX):
        rate = decimal_text(named.liti_rate)
        if rate != "1":
            return f"LITI {rate}"
        return "whole run" if named.control else "merged (LITI 1)"
    return named.name.replace("member/", "RL run ")


def series_label(named: NamedPoint) -> str:
    """The group that a point belongs to: SFT, iteration 2, or a control by name."""
    if named.name == SFT_POINT:
        return "SFT"
    return f"control {named.control}" if named.control else f"iteration {named.iteration}"


def front_rows(front: Front) -> tuple[Row, ...]:
    """One flat row per point, the same columns in every row; None where a reward was not evaluated."""
    held_out = front.measures[1:]
    scores = tuple(dict.fromkeys(name for point in front.points for name in point.scores))
    return tuple(_row(point, scores, held_out) for point in front.points)


def _row(point: FrontPoint, scores: Sequence[str], held_out: Sequence[str]) -> Row:
    named = point.named
    return {
        "iteration": named.iteration,
        "control": named.control,
        "point": named.name,
        "liti_rate": decimal_text(named.liti_rate),
        **_cells("kl", point.kl),
        **_cells("kl_k1", point.kl_k1),
        **_cells("reward", point.reward),
        **{cell: value for name in scores for cell, value in _cells(f"score.{name}", point.scores.get(name)).items()},
        **{
            cell: value
            for name in held_out
            for cell, value in _cells(f"held_out.{name}", point.held_out.get(name)).items()
        },
        **_cells("length", point.length),
        "truncated": point.truncated.mean,
        **_cells("self_similarity", point.self_similarity),
        "on_front": point.is_on_front,
        "point_key": named.point_key,
    }


def _cells(name: str, estimate: Estimate | None) -> dict[str, Cell]:
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def to_csv(rows: Sequence[Row]) -> str:
    """RFC 4180 with a header; numbers in full precision, so that reading them gives the same numbers; None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _csv_cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _csv_cell(value: Cell) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def front_document(front: Front, *, run: str, max_kl: float | None) -> dict[str, Any]:
    """front.json: everything that the tables show, as plain data. `max_kl` is the run's KL budget (spec.training.maxKl)."""
    best = best_point(front, max_kl=max_kl)
    return {
        "layoutVersion": 1,
        "run": run,
        "klUnit": "nats per completion, Rao-Blackwellised, at the sampling temperature",
        "confidenceLevel": front.confidence_level,
        "numPrompts": front.num_prompts,
        "numGenerations": front.num_generations,
        "maxKl": max_kl,
        "measures": list(front.measures),
        "points": [_point_document(point) for point in front.points],
        "iterations": [
            {
                "iteration": line.iteration,
                "hypervolume": {name: _estimate_document(area) for name, area in line.hypervolume.items()},
                "rewardAtKl": {
                    name: [{"kl": at, **_estimate_document(reward)} for at, reward in rewards.items()]
                    for name, rewards in line.reward_at_kl.items()
                },
            }
            for line in front.iterations
        ],
        "hypervolumeMaxKl": front.max_kl,
        "best": None
        if best is None
        else {**_identity_document(best.point.named), "measure": best.measure, "why": best.why},
    }


def _identity_document(named: NamedPoint) -> dict[str, Any]:
    return {"iteration": named.iteration, "control": named.control, "name": named.name, "label": point_label(named)}


def _point_document(point: FrontPoint) -> dict[str, Any]:
    return {
        **_identity_document(point.named),
        "series": series_label(point.named),
        "litiRate": decimal_text(point.named.liti_rate),
        "pointKey": point.named.point_key,
        "kl": _estimate_document(point.kl),
        "klK1": _estimate_document(point.kl_k1),
        "reward": _estimate_document(point.reward),
        "scores": {name: _estimate_document(score) for name, score in point.scores.items()},
        "heldOut": {name: _estimate_document(score) for name, score in point.held_out.items()},
        "length": _estimate_document(point.length),
        "truncated": point.truncated.mean,
        "selfSimilarity": _estimate_document(point.self_similarity),
        "isOnFront": point.is_on_front,
    }


def _estimate_document(estimate: Estimate) -> dict[str, float]:
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
