"""Evaluated points as Vega-Lite specs: plain data, no library. render.py turns them into pictures.

KL to the SFT policy stands on a square-root scale: there LITI runs nearly straight, and the straight lines between points
are the interpolation that reward_at_kl reads off. Hues and markers are palette.py's, label_places.py places the rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpctl.reports.estimate import REWARD, Front
from warpctl.reports.frame import Frame, Size, label_places
from warpctl.reports.label_places import Placed
from warpctl.reports.palette import GRID, INK, MUTED, PAPER, SFT_SERIES, series_style
from warpctl.reports.plotted import KL, Axis, Plotted, axis_of, liti_line, plotted
from warpctl.reports.trajectories import Trajectory

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_SHORT_KL_TITLE = "KL to the SFT policy (nats, sqrt scale)"
_TITLE_WIDTH = 400
"""Plots narrower than this have the short title."""


_MANY = 8
"""Trajectories beyond which they step back behind the points."""

WIDE, NARROW, SMALL = Size(540, 380), Size(286, 290), Size(330, 240)


def scatter(
    points: Sequence[Plotted],
    x: Axis,
    y: Axis,
    *,
    size: Size,
    trajectories: Sequence[Trajectory] = (),
    has_legend: bool = False,
) -> Spec:
    """Points with intervals on both axes, the LITI line of each series, trajectories; x is KL where they are given."""
    frame = Frame.of(points, trajectories, size, is_kl=x.is_kl)
    series = list(dict.fromkeys(point.series for point in points))
    scales = _series_scales(series)
    legend = _legend() if has_legend else None
    encoded = {name: {"field": "series", "type": "nominal", "scale": scales[name]} for name in scales}
    colour = {**encoded["color"], "legend": legend}
    dash = {**encoded["strokeDash"], "legend": None}
    at = _encoding(x, y, frame)
    values = [_datum(point, place) for point, place in zip(points, label_places(points, frame), strict=True)]
    lines = [_place(point, name) for name in series if name != SFT_SERIES for point in liti_line(points, name)]
    band = sorted((_place(point, "") for point in points if point.is_on_front), key=lambda value: value["x"])
    paths = [
        {"run": number, "series": t.series, "step": step, "x": kl, "y": reward}
        for number, t in enumerate(trajectories)
        if t.series in series
        for step, (kl, reward) in enumerate(zip(t.kl, t.reward, strict=True))
    ]
    opacity = 0.75 if len(trajectories) <= _MANY else 0.4
    thin = {"type": "rule", "strokeWidth": 1, "opacity": 0.55}
    layers = [
        _layer(band, {"type": "line", "color": MUTED, "strokeWidth": 9, "opacity": 0.25, "strokeCap": "round"}, at),
        _layer(
            paths,
            {"type": "line", "strokeWidth": 1.2, "opacity": opacity, "strokeDash": [1, 3], "strokeCap": "round"},
            {**at, "color": colour, "detail": {"field": "run"}, "order": {"field": "step"}},
        ),
        _layer(
            lines,
            {"type": "line", "strokeWidth": 1.6},
            {**at, "color": colour, "strokeDash": dash, "order": {"field": "rate", "type": "quantitative"}},
        ),
        _layer(values, thin, {**at, "x": {**at["x"], "field": "xLow"}, "x2": {"field": "xHigh"}, "color": colour}),
        _layer(values, thin, {**at, "y": {**at["y"], "field": "yLow"}, "y2": {"field": "yHigh"}, "color": colour}),
        _layer(
            values,
            {"type": "point", "strokeWidth": 1.5, "opacity": 1},
            {
                **at,
                # Crosses and stars fill less of their square.
                "size": {"condition": {"test": "indexof(datum.series, 'control') === 0", "value": 105}, "value": 62},
                "shape": {**encoded["shape"], "legend": legend},
                "color": colour,
                "fill": {"condition": {"test": "datum.kind === 'member'", "value": PAPER}, **colour, "legend": None},
                "description": {"field": "tip"},
            },
        ),
        _layer(
            [value for value in values if value["label"]],
            {
                "type": "text",
                "fontSize": 10.5,
                "dx": {"expr": "datum.dx"},
                "dy": {"expr": "datum.dy"},
            },
            {**at, "text": {"field": "label"}, "color": colour},
        ),
    ]
    return {
        "$schema": SCHEMA,
        "width": size.width,
        "height": size.height,
        "layer": [layer for layer in layers if layer["data"]["values"]],
        "config": config(),
    }


def front_charts(front: Front, *, trajectories: Sequence[Trajectory] = ()) -> Spec:
    """All measures in one picture, side by side: front.svg and front.png."""
    charts = [
        scatter(
            plotted(front, KL, measure),
            axis_of(KL),
            axis_of(measure),
            size=Size(440, 320),
            trajectories=trajectories if measure == REWARD else (),
            has_legend=True,
        )
        for measure in front.measures
    ]
    parts = [{key: chart[key] for key in ("width", "height", "layer")} for chart in charts]
    return {"$schema": SCHEMA, "concat": parts, "columns": 2, "config": {**config(), "background": PAPER}}


def _place(point: Plotted, series: str) -> Spec:
    return {"series": series, "rate": point.rate, "x": max(point.x.mean, 0.0), "y": point.y.mean}


def _datum(point: Plotted, place: Placed | None) -> Spec:
    return {
        **_place(point, point.series),
        "kind": point.kind,
        "label": point.label if place else "",
        "dx": place.dx if place else 0.0,
        "dy": place.dy if place else 0.0,
        "xLow": max(point.x.low, 0.0),
        "xHigh": max(point.x.high, 0.0),
        "yLow": point.y.low,
        "yHigh": point.y.high,
        "tip": point.tip,
    }


def _series_scales(series: Sequence[str]) -> dict[str, Spec]:
    styles = [series_style(name) for name in series]
    ranges = {
        "color": [style.light for style in styles],
        "shape": [style.shape for style in styles],
        "strokeDash": [list(style.dash) or [1, 0] for style in styles],
    }
    return {name: {"domain": list(series), "range": values} for name, values in ranges.items()}


def _encoding(x: Axis, y: Axis, frame: Frame) -> Spec:
    ticks = {"values": frame.kl_ticks(), "labelExpr": "'' + datum.value"} if x.is_kl else {"tickCount": 5}
    title = _SHORT_KL_TITLE if x.is_kl and frame.size.width < _TITLE_WIDTH else x.title
    return {
        "x": {
            "field": "x",
            "type": "quantitative",
            "scale": {"type": "sqrt" if x.is_kl else "linear", "domain": list(frame.x), "nice": False, "zero": False},
            # Markers at KL 0 stand clear of the axis.
            "axis": {"title": title, "offset": 7, **ticks},
        },
        "y": {
            "field": "y",
            "type": "quantitative",
            "scale": {"domain": list(frame.y), "nice": False, "zero": False},
            "axis": {"title": y.title, "offset": 7, "tickCount": 6},
        },
    }


def _legend() -> Spec:
    return {
        "title": None,
        "orient": "top",
        "direction": "horizontal",
        "columns": 5,
        "columnPadding": 18,
        "symbolOpacity": 1,
    }


def _layer(values: Sequence[Spec], mark: Spec, encoding: Spec) -> Spec:
    return {"data": {"values": list(values)}, "mark": mark, "encoding": encoding}


def config() -> Spec:
    """Colours and type of every chart."""
    text = {"labelColor": INK, "titleColor": INK, "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"}
    return {
        "background": None,
        "view": {"stroke": None},
        "axis": {**text, "gridColor": GRID, "domainColor": MUTED, "tickColor": MUTED, "titlePadding": 8},
        "legend": {"labelColor": INK, "labelFontSize": 12},
        "title": {"color": INK, "anchor": "start", "fontSize": 13},
    }
