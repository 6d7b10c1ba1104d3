"""Charts as a page shows them: SVG in the sizes that screens need, a name for who cannot see it, a legend in HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warpctl.reports.charts import NARROW, SMALL, WIDE, scatter
from warpctl.reports.estimate import REWARD, Front
from warpctl.reports.frame import Size
from warpctl.reports.inline_svg import inline_svg
from warpctl.reports.merges import MergeFacts, cosine_chart, norm_chart
from warpctl.reports.palette import Style, glyph, series_style
from warpctl.reports.plotted import KL, LENGTH, SELF_SIMILARITY, Axis, Plotted, axis_of, measure_title, plotted
from warpctl.reports.trajectories import Trajectory

if TYPE_CHECKING:
    from markupsafe import Markup

Draw = Callable[[dict[str, Any]], str]
"""From a Vega-Lite spec to SVG: render.to_svg."""


@dataclass(frozen=True)
class Figure:
    """A chart with its heading."""

    title: str
    wide: Markup
    narrow: Markup | None
    """For a phone; None where one size suits all screens."""


@dataclass(frozen=True)
class LegendEntry:
    """One series."""

    name: str
    style: Style
    glyph: str
    may_hide: bool
    """Whether its colour is its own, so that a script can hide its marks by it."""


def legend(series: Sequence[str], names: Sequence[str] = ()) -> tuple[LegendEntry, ...]:
    """One entry for each series, called by `names` where those are given."""
    styles = [series_style(name) for name in series]
    used = [style.variable for style in styles]
    shown = names or series
    return tuple(
        LegendEntry(name, style, glyph(style), style.variable != "ink" and used.count(style.variable) == 1)
        for name, style in zip(shown, styles, strict=True)
    )


def front_figures(front: Front, draw: Draw, *, trajectories: Sequence[Trajectory] = ()) -> tuple[Figure, ...]:
    """KL against each reward, the trained-on one with the trajectories."""
    return tuple(
        scatter_figure(
            f"{sentence(measure_title(measure))} against KL",
            plotted(front, KL, measure),
            axis_of(KL),
            axis_of(measure),
            draw,
            prefix=f"front-{number}",
            trajectories=trajectories if measure == REWARD else (),
        )
        for number, measure in enumerate(front.measures)
    )


def text_figures(front: Front, draw: Draw) -> tuple[Figure, ...]:
    """Length against KL, the judge's reward against length, self-similarity against KL."""
    judge = front.measures[1] if len(front.measures) > 1 else REWARD
    wanted = (
        ("Length against KL", KL, LENGTH),
        (f"{sentence(measure_title(judge))} against length", LENGTH, judge),
        ("Self-similarity against KL", KL, SELF_SIMILARITY),
    )
    return tuple(
        _small(title, scatter(plotted(front, x, y), axis_of(x), axis_of(y), size=SMALL), draw, f"text-{number}")
        for number, (title, x, y) in enumerate(wanted)
    )


def merge_figures(merges: Sequence[MergeFacts], draw: Draw) -> tuple[Figure, ...]:
    """Cosines and norms by layer, where there is more than one layer to compare."""
    if not any(len(merge.groups) > 1 for merge in merges):
        return ()
    norms = _small("Norm of the task vectors by layer", norm_chart(merges, SMALL), draw, "merge-norm")
    if not any(group.cosine is not None for merge in merges for group in merge.groups):
        return (norms,)  # one member has no pairs
    return (_small("Cosine of task vectors by layer", cosine_chart(merges, SMALL), draw, "merge-cosine"), norms)


def scatter_figure(
    title: str,
    points: Sequence[Plotted],
    x: Axis,
    y: Axis,
    draw: Draw,
    *,
    prefix: str,
    trajectories: Sequence[Trajectory] = (),
) -> Figure:
    """A chart in two sizes."""

    def drawn(size: Size, name: str) -> Markup:
        return _inline(draw(scatter(points, x, y, size=size, trajectories=trajectories)), title, f"{prefix}-{name}")

    return Figure(title, drawn(WIDE, "wide"), drawn(NARROW, "narrow"))


def _small(title: str, spec: dict[str, Any], draw: Draw, prefix: str) -> Figure:
    return Figure(title, _inline(draw(spec), title, prefix), None)


def _inline(svg: str, title: str, prefix: str) -> Markup:
    from markupsafe import Markup

    name = f"{title}; the table below has the numbers"
    return Markup(inline_svg(svg, name=name, prefix=prefix))  # noqa: S704  # only drawing elements are left in it


def sentence(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]
