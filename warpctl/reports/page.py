"""The report: one HTML file that needs nothing else, no script and no network.

Everything from data passes through Jinja2's autoescape; the data island is JSON with `<`, `>` and `&` escaped, and the
page's own Content-Security-Policy lets no script run. Charts arrive as SVG from render.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warpctl.reports.charts import GRID, INK, MUTED, hues
from warpctl.reports.facts import StageFacts
from warpctl.reports.samples import Sample
from warpctl.reports.summary import front_table, plus_minus

TEMPLATE = "report.html.j2"

TINY_NOTICE = (
    "This is a tiny run: it shows that the machinery works from spec to front, and proves nothing of the paper's claims. "
    "Not reproduced at this scale: a front of the EMA anchor above that of a well-tuned SFT anchor, orthogonal task "
    "vectors, later iterations that gain at equal KL, and an EMA run that drifts farther than an SFT-anchored one."
)
NOTICE = (
    "Intervals are over evaluation prompts only: they do not cover the spread between seeds, which one run cannot show."
)


@dataclass(frozen=True)
class Chart:
    """A rendered chart with what is said beneath it."""

    title: str
    svg: str


@dataclass(frozen=True)
class Report:
    """All that the page shows."""

    document: Mapping[str, Any]
    """front.json."""
    charts: Sequence[Chart]
    """Empty when there is no renderer."""
    samples: Sequence[Sample]
    stages: Sequence[StageFacts]
    spec: Mapping[str, Any]
    is_tiny: bool
    temperature: str
    """Sampling temperature of the evaluation."""
    has_trajectories: bool = False


def render_page(report: Report) -> str:
    """The whole page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("warpctl.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plus_minus"] = plus_minus
    document = report.document
    series = [point["series"] for point in document["points"]]
    num_hues = len({name for name in series if name.startswith("iteration ")})
    versions = {f"{name} {version}" for stage in report.stages for name, version in stage.versions.items()}
    return environment.get_template(TEMPLATE).render(
        report=report,
        front=document,
        table=front_table(document),
        notice=TINY_NOTICE if report.is_tiny else NOTICE,
        charts=[(chart.title, Markup(themed(chart.svg, num_hues))) for chart in report.charts],  # noqa: S704  # our own
        hues=list(zip(hues(num_hues), hues(num_hues, is_dark=True), strict=True)),
        versions=sorted(versions),
        spec=json.dumps(report.spec, indent=2, ensure_ascii=False),
        island=Markup(data_island(document)),  # noqa: S704  # escaped there
    )


def themed(svg: str, num_hues: int) -> str:
    """The SVG with its colours as CSS variables, so that the page's light, dark and print styles reach it."""
    variables = {INK: "ink", MUTED: "muted", GRID: "grid"}
    variables |= {hue: f"hue-{number}" for number, hue in enumerate(hues(num_hues))}
    for colour, name in variables.items():
        svg = svg.replace(f'"{colour}"', f'"var(--{name})"')
    return svg


def data_island(document: Mapping[str, Any]) -> str:
    """JSON that is inert inside a script element: no `<`, `>` or `&` is left in it."""
    text = json.dumps(document, sort_keys=True, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
