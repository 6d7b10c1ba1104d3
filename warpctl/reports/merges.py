"""What each merge saw, layer by layer, from its merge.json: angles between task vectors, norms, how much of the init moved.

The paper measures cosines of task vectors near 0 and of full weights above 0.999 in every layer (docs/merging.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from warpctl.errors import WarpctlError
from warpctl.reports.charts import SCHEMA, Spec, config
from warpctl.reports.frame import Size
from warpctl.reports.palette import MUTED, series_style
from warpctl.spec.stage_input import StageKind
from warpctl.storage.artifact import Artifact
from warpctl.storage.file_names import MERGE_RECORD
from warpctl.storage.manifest import Manifest
from warpctl.storage.store import Store

MAX_MARKED = 40
"""Groups beyond which a chart has lines only."""

_STAGE_ID = re.compile(r"merge/(\d+)")
_LAYERS = re.compile(r"^(?:model\.)?(?:layers\.)?")


@dataclass(frozen=True)
class GroupFacts:
    """One group of tensors (a layer, or a module outside of the layers) in one merge."""

    name: str
    """Short: `12` for model.layers.12, `embed_tokens`."""
    cosine: float | None
    """Between task vectors, mean over the pairs of members; None for one member or a zero task vector."""
    cosine_low: float | None
    cosine_high: float | None
    weight_cosine: float | None
    """Lowest cosine of full weights over the pairs."""
    moved: float | None
    """Mean norm of the task vectors, as a fraction of the init's norm."""
    norm_ratio: float | None
    """Largest over smallest norm of the task vectors."""
    merged_ratio: float | None
    """Norm of the merged task vector over the mean norm of the task vectors: 1 for SLERP of equal norms."""
    degenerate: str
    """Why LERP stood in for SLERP; usually empty."""


@dataclass(frozen=True)
class MergeFacts:
    """One merge."""

    iteration: int
    num_members: int
    cosine: float | None
    """Of whole task vectors, mean over pairs."""
    groups: tuple[GroupFacts, ...]


def read_merges(store: Store, manifests: Iterable[Manifest]) -> tuple[MergeFacts, ...]:
    """The merges among `manifests`, by iteration; one whose diagnostics are gone or unreadable is left out."""
    found = []
    for manifest in manifests:
        stage_id = _STAGE_ID.fullmatch(manifest.stage_id)
        if manifest.kind != StageKind.MERGE or stage_id is None:
            continue
        try:
            document = json.loads(Artifact(store, manifest).read(MERGE_RECORD))
            found.append(merge_facts(document, iteration=int(stage_id[1])))
        except (WarpctlError, ValueError, KeyError, TypeError, IndexError):
            continue
    return tuple(sorted(found, key=lambda merge: merge.iteration))


def merge_facts(document: dict[str, Any], *, iteration: int) -> MergeFacts:
    """The facts of a merge.json."""
    return MergeFacts(
        iteration=iteration,
        num_members=len(document["members"]),
        cosine=document["summary"].get("cosine"),
        groups=tuple(_group(group) for group in document["groups"]),
    )


def _group(group: dict[str, Any]) -> GroupFacts:
    norms = [float(norm) for norm in group["norms"]]
    pairs = [(a, b) for b in range(len(norms)) for a in range(b)]
    task = [float(value) for a, b in pairs if (value := group["cosines"][a][b]) is not None]
    full = [float(value) for a, b in pairs if (value := group["weightCosines"][a][b]) is not None]
    mean = sum(norms) / len(norms)
    return GroupFacts(
        name=_LAYERS.sub("", str(group["group"])),
        cosine=sum(task) / len(task) if task else None,
        cosine_low=min(task, default=None),
        cosine_high=max(task, default=None),
        weight_cosine=min(full, default=None),
        moved=mean / group["initNorm"] if group["initNorm"] else None,
        norm_ratio=max(norms) / min(norms) if min(norms) else None,
        merged_ratio=group["mergedNorm"] / mean if mean else None,
        degenerate=", ".join(dict.fromkeys(str(each) for each in group["degenerate"])),
    )


def cosine_chart(merges: Sequence[MergeFacts], size: Size) -> Spec:
    """Cosines of task vectors by layer: mean over the pairs of members, with their range."""
    rows = [
        {**_at(merge, group), "y": group.cosine, "low": group.cosine_low, "high": group.cosine_high}
        for merge in merges
        for group in merge.groups
        if group.cosine is not None
    ]
    return _layer_chart(merges, rows, "cosine of task vectors", size, has_zero=True)


def norm_chart(merges: Sequence[MergeFacts], size: Size) -> Spec:
    """How far the members moved each layer, in percent of the init's norm."""
    rows = [
        {**_at(merge, group), "y": 100 * group.moved, "low": None, "high": None}
        for merge in merges
        for group in merge.groups
        if group.moved is not None
    ]
    return _layer_chart(merges, rows, "task vector's norm (% of the init's)", size, has_zero=False)


def _at(merge: MergeFacts, group: GroupFacts) -> Spec:
    return {"series": f"iteration {merge.iteration}", "group": group.name}


def _layer_chart(merges: Sequence[MergeFacts], rows: list[Spec], title: str, size: Size, *, has_zero: bool) -> Spec:
    for row in rows:
        row["tip"] = f"{row['series']}, {row['group']}\n{title} {row['y']:.3f}"
        if row["low"] is not None and row["low"] != row["high"]:
            row["tip"] += f" [{row['low']:.3f}, {row['high']:.3f}] over pairs"
    series = list(dict.fromkeys(row["series"] for row in rows))
    styles = [series_style(name) for name in series]
    nominal = {"field": "series", "type": "nominal", "legend": None}
    colour = {**nominal, "scale": {"domain": series, "range": [style.light for style in styles]}}
    shape = {**nominal, "scale": {"domain": series, "range": [style.shape for style in styles]}}
    names = list(dict.fromkeys(group.name for merge in merges for group in merge.groups))
    axis = {"title": "layer", "labelAngle": 0 if len(names) > MAX_MARKED else -40, "labelOverlap": True, "offset": 5}
    x = {"field": "group", "type": "ordinal", "sort": names, "scale": {"type": "point", "padding": 0.6}, "axis": axis}
    y = {"field": "y", "type": "quantitative", "scale": {"zero": True}, "axis": {"title": title, "tickCount": 5}}
    lines = {"type": "line", "strokeWidth": 1.5, "opacity": 0.7}
    layers: list[Spec] = [{"mark": lines, "encoding": {"x": x, "y": y, "color": colour}}]
    if len(names) <= MAX_MARKED:
        rule = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour}
        layers += [
            {"mark": {"type": "rule", "opacity": 0.55}, "encoding": rule},
            {
                "mark": {"type": "point", "size": 48, "opacity": 1, "strokeWidth": 1.2},
                "encoding": {
                    "x": x,
                    "y": y,
                    "color": colour,
                    "fill": colour,
                    "shape": shape,
                    "description": {"field": "tip"},
                },
            },
        ]
    if has_zero:
        layers.insert(
            0, {"mark": {"type": "rule", "color": MUTED, "strokeDash": [4, 3]}, "encoding": {"y": {"datum": 0}}}
        )
    return {
        "$schema": SCHEMA,
        "width": size.width,
        "height": size.height,
        "data": {"values": rows},
        "layer": layers,
        "config": config(),
    }
