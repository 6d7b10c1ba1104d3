"""The front as Vega-Lite specs: plain data, no library. render.py turns them into pictures.

x is KL to the SFT policy on a square-root scale: there LITI runs nearly straight, and the straight lines between points
are the interpolation that reward_at_kl reads off. One ordered, colour-blind-safe hue and one marker per iteration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warpctl.reports.estimate import LITI_PREFIX, REWARD, Estimate, Front, FrontPoint
from warpctl.reports.evaluation import SFT_POINT
from warpctl.reports.table import series_label
from warpctl.spec.base import decimal_text

Spec = dict[str, Any]

INK = "#1f2328"
MUTED = "#6e7781"
GRID = "#d8dee4"
SHAPES = ("circle", "square", "triangle-up", "cross", "triangle-down", "triangle-right", "triangle-left")
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"

# Viridis (van der Walt and Smith), five anchors: ordered in lightness, distinct in all common colour blindnesses.
_VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_KL_TICKS = (0.05, 0.1, 0.25, 0.5, *(factor * 10**power for power in range(4) for factor in (1, 2, 5)))
_TICK_DISTANCE = 0.07  # of the axis
_ON_LIGHT = (0.0, 0.62)  # beyond, contrast against white falls below 3:1
_ON_DARK = (0.95, 0.5)


@dataclass(frozen=True)
class Trajectory:
    """Evaluations along one RL run."""

    iteration: int
    member: int
    kl: tuple[float, ...]
    reward: tuple[float, ...]


def hues(count: int, *, is_dark: bool = False) -> tuple[str, ...]:
    """`count` ordered hues as #rrggbb, for a light or a dark background."""
    first, last = _ON_DARK if is_dark else _ON_LIGHT
    return tuple(_viridis(first + (last - first) * (i / (count - 1) if count > 1 else 0.3)) for i in range(count))


def _viridis(position: float) -> str:
    scaled = position * (len(_VIRIDIS) - 1)
    below = min(int(scaled), len(_VIRIDIS) - 2)
    share = scaled - below
    mixed = (round(a + (b - a) * share) for a, b in zip(_VIRIDIS[below], _VIRIDIS[below + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def front_chart(front: Front, measure: str = REWARD, *, trajectories: Sequence[Trajectory] = ()) -> Spec:
    """KL against one measure (`REWARD` or a held-out reward), with intervals; points that lack the measure are left out."""
    values = [_datum(point, measure, value) for point in front.points if (value := point.measure(measure)) is not None]
    series = list(dict.fromkeys(value["series"] for value in values))
    scales = _series_scales(series)
    # Each iteration's line starts at the SFT policy, which belongs to all of them.
    sft = [datum for datum in values if datum["kind"] == SFT_POINT]
    lines = [
        {**datum, "series": name}
        for name in series
        for datum in (*sft, *(value for value in values if value["series"] == name and value["kind"] == "liti"))
        if name != "SFT"
    ]
    best = sorted((v for v in values if v["on_front"]), key=lambda v: v["kl"]) if measure == REWARD else []
    paths = [
        {"run": f"{t.iteration}/{t.member}", "series": f"iteration {t.iteration}", "step": i, "kl": kl, "y": reward}
        for t in (trajectories if measure == REWARD else ())
        for i, (kl, reward) in enumerate(zip(t.kl, t.reward, strict=True))
    ]
    x, y = _axes(measure, largest_kl=max((value["kl_high"] for value in values), default=0.0))
    colour = {"field": "series", "type": "nominal", "scale": scales["color"], "legend": _legend()}
    shape = {"field": "series", "type": "nominal", "scale": scales["shape"], "legend": _legend()}
    layers = [
        _layer(best, {"type": "line", "color": MUTED, "strokeWidth": 8, "opacity": 0.22}, {"x": x, "y": y}),
        _layer(
            paths,
            {"type": "line", "strokeWidth": 1.2, "opacity": 0.8, "strokeDash": [2, 3]},
            {"x": x, "y": y, "color": colour, "detail": {"field": "run"}, "order": {"field": "step"}},
        ),
        _layer(
            lines,
            {"type": "line", "strokeWidth": 1.5},
            {
                "x": x,
                "y": y,
                "color": colour,
                "order": {"field": "rate", "type": "quantitative"},
                "strokeDash": {
                    "condition": {"test": "indexof(datum.series, 'control') === 0", "value": [5, 3]},
                    "value": [],
                },
            },
        ),
        _layer(
            values,
            {"type": "rule", "strokeWidth": 1, "opacity": 0.6},
            {"x": {**x, "field": "kl_low"}, "x2": {"field": "kl_high"}, "y": y, "color": colour},
        ),
        _layer(
            values,
            {"type": "rule", "strokeWidth": 1, "opacity": 0.6},
            {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour},
        ),
        _layer(
            values,
            {"type": "point", "size": 62, "strokeWidth": 1.4},
            {
                "x": x,
                "y": y,
                "shape": shape,
                "color": colour,
                "fillOpacity": {"condition": {"test": "datum.kind === 'member'", "value": 0}, "value": 1},
                "fill": {**colour, "legend": None},
                "description": {"field": "description"},
            },
        ),
        *(
            _labels([v for v in values if v["is_upper"] is is_upper], x, y, is_upper=is_upper)
            for is_upper in (False, True)
        ),
    ]
    return {
        "$schema": SCHEMA,
        "width": 560,
        "height": 380,
        "layer": [layer for layer in layers if layer["data"]["values"]],
        "config": _config(),
    }


def front_charts(front: Front, *, trajectories: Sequence[Trajectory] = ()) -> Spec:
    """All measures in one picture, side by side: front.svg and front.png."""
    charts = [front_chart(front, measure, trajectories=trajectories) for measure in front.measures]
    parts = [{key: chart[key] for key in ("width", "height", "layer")} for chart in charts]
    return {"$schema": SCHEMA, "concat": parts, "columns": 2, "config": {**_config(), "background": "white"}}


def _datum(point: FrontPoint, measure: str, value: Estimate) -> dict[str, Any]:
    named = point.named
    is_liti = named.name.startswith(LITI_PREFIX)
    kind = SFT_POINT if named.name == SFT_POINT else "liti" if is_liti else "member"
    # Controls run close to the front: their rates would hide those of the run.
    label = decimal_text(named.liti_rate) if is_liti and not named.control else ""
    return {
        "series": series_label(named),
        "kind": kind,
        "rate": 0.0 if kind == SFT_POINT else float(named.liti_rate),
        "label": label,
        "kl": max(point.kl.mean, 0.0),
        "kl_low": max(point.kl.low, 0.0),
        "kl_high": max(point.kl.high, 0.0),
        "y": value.mean,
        "low": value.low,
        "high": value.high,
        "on_front": point.is_on_front,
        "is_upper": named.iteration > 0 and named.iteration % 2 == 0,
        "description": f"{series_label(named)} {named.name}: KL {point.kl.mean:.2f}, {measure} {value.mean:.2f}",
    }


def _series_scales(series: Sequence[str]) -> dict[str, Spec]:
    iterations = [name for name in series if name.startswith("iteration ")]
    by_iteration = dict(zip(iterations, hues(len(iterations)), strict=True))
    colours = {name: by_iteration.get(name, INK if name == "SFT" else MUTED) for name in series}
    controls = [name for name in series if name.startswith("control ")]
    shapes = {name: SHAPES[i % len(SHAPES)] for i, name in enumerate((*iterations, *controls))} | {"SFT": "diamond"}
    return {
        "color": {"domain": list(series), "range": [colours[name] for name in series]},
        "shape": {"domain": list(series), "range": [shapes[name] for name in series]},
    }


def _axes(measure: str, *, largest_kl: float) -> tuple[Spec, Spec]:
    x = {
        "field": "kl",
        "type": "quantitative",
        "scale": {"type": "sqrt", "domainMin": 0, "nice": False, "padding": 6},
        "axis": {
            "title": "KL to the SFT policy (nats per completion, Rao-Blackwellised; square-root scale)",
            # Vega spaces ticks evenly in KL, which crowds the right of a square-root scale.
            "values": _ticks(largest_kl),
            "labelExpr": "'' + datum.value",  # Vega would round 0.25 to 0.3
        },
    }
    y = {
        "field": "y",
        "type": "quantitative",
        "scale": {"zero": False, "padding": 8},
        "axis": {"title": _measure_title(measure), "tickCount": 6},
    }
    return x, y


def _ticks(largest_kl: float) -> list[float]:
    """0 and round KLs up to the largest, none so close to the next one that their labels would touch."""
    distance = _TICK_DISTANCE * math.sqrt(largest_kl)
    ticks: list[float] = []
    for tick in reversed([tick for tick in _KL_TICKS if distance <= math.sqrt(tick) and tick <= largest_kl]):
        if not ticks or math.sqrt(ticks[0]) - math.sqrt(tick) >= distance:
            ticks.insert(0, tick)
    return [0, *ticks]


def _measure_title(measure: str) -> str:
    return "trained-on reward" if measure == REWARD else f"held-out reward: {measure}"


def _legend() -> Spec:
    return {
        "title": None,
        "orient": "top",
        "direction": "horizontal",
        "columns": 4,
        "columnPadding": 18,
        "symbolOpacity": 1,
    }


def _labels(values: Sequence[Mapping[str, Any]], x: Spec, y: Spec, *, is_upper: bool) -> Spec:
    """LITI rates: below right of the marker, every second iteration's above left, since their lines run close together."""
    place = {"dx": -6, "dy": -8, "align": "right"} if is_upper else {"dx": 6, "dy": 10, "align": "left"}
    mark = {"type": "text", **place, "fontSize": 10, "color": MUTED}
    return _layer(values, mark, {"x": x, "y": y, "text": {"field": "label"}})


def _layer(values: Sequence[Mapping[str, Any]], mark: Spec, encoding: Spec) -> Spec:
    return {"data": {"values": list(values)}, "mark": mark, "encoding": encoding}


def _config() -> Spec:
    text = {"labelColor": INK, "titleColor": INK, "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"}
    return {
        "background": None,
        "view": {"stroke": None},
        "axis": {**text, "gridColor": GRID, "domainColor": MUTED, "tickColor": MUTED},
        "legend": {"labelColor": INK, "labelFontSize": 12},
        "title": {"color": INK, "anchor": "start", "fontSize": 13},
    }
