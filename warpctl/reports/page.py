"""The report: one HTML file that needs nothing else; without script all of it is there, with script points tell their numbers.

Everything from data passes through Jinja2's autoescape; the data island is JSON with `<`, `>` and `&` escaped. The page's
own Content-Security-Policy lets no script run but its own, by hash, which writes text only. Charts come from figures.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from warpctl.reports.comparison import MeasureComparison
from warpctl.reports.contrasts import FrontContrast
from warpctl.reports.estimate import REWARD, Estimate
from warpctl.reports.facts import StageFacts
from warpctl.reports.figures import Figure, legend
from warpctl.reports.merges import MergeFacts
from warpctl.reports.palette import variables
from warpctl.reports.plotted import measure_title
from warpctl.reports.samples import Sample
from warpctl.reports.summary import front_table, plus_minus
from warpctl.reports.win_rate import WinRate

TEMPLATE = "report.html.j2"
SCRIPT = "page.js"

TINY_NOTICE = (
    "This is a tiny run: it shows that the machinery works from spec to front, and proves nothing of the paper's claims. "
    "Not reproduced at this scale: a front of the EMA anchor above that of a well-tuned SFT anchor, orthogonal task "
    "vectors, later iterations that gain at equal KL, and an EMA run that drifts farther than an SFT-anchored one."
)
NOTICE = (
    "Intervals are over evaluation prompts only: they do not cover the spread between seeds, which one run cannot show."
)


@dataclass(frozen=True)
class Figures:
    """The charts by the section that they stand in; all empty when there is no renderer."""

    fronts: Sequence[Figure] = ()
    texts: Sequence[Figure] = ()
    """Length and self-similarity."""
    merges: Sequence[Figure] = ()


@dataclass(frozen=True)
class Seeds:
    """What was drawn from which seed."""

    run: int
    evaluation: int


@dataclass(frozen=True)
class Report:
    """All that the page shows."""

    document: Mapping[str, Any]
    """front.json."""
    figures: Figures
    samples: Sequence[Sample]
    regrets: Sequence[Sample]
    win_rates: Sequence[WinRate]
    contrasts: Sequence[FrontContrast]
    merges: Sequence[MergeFacts]
    stages: Sequence[StageFacts]
    spec: Mapping[str, Any]
    seeds: Seeds
    is_tiny: bool
    temperature: str
    """Sampling temperature of the evaluation."""
    top_p: str = "1"
    has_trajectories: bool = False


def render_page(report: Report) -> str:
    """The whole page."""
    document = report.document
    table = front_table(document)
    series = list(dict.fromkeys(point["series"] for point in document["points"]))
    versions = {f"{name} {version}" for stage in report.stages for name, version in stage.versions.items()}
    return render_template(
        TEMPLATE,
        report=report,
        front=document,
        table=table,
        notice=TINY_NOTICE if report.is_tiny else NOTICE,
        legend=legend(series),
        groups=[(name, _with_places(document, name, table.best_row)) for name in series],
        controls=[name.partition(" ")[2] for name in series if name.startswith("control ")],
        versions=sorted(versions),
        spec=json.dumps(report.spec, indent=2, ensure_ascii=False),
        island=document,
    )


def _with_places(
    document: Mapping[str, Any], series: str, best_row: int | None
) -> list[tuple[bool, Mapping[str, Any]]]:
    """The points of a series, each with whether it is the best one."""
    return [(i == best_row, point) for i, point in enumerate(document["points"]) if point["series"] == series]


def render_template(name: str, *, island: Mapping[str, Any], **values: Any) -> str:
    """A template with what all pages share: filters, colours, the script and its hash, and `island` as its data."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("warpctl.reports")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plus_minus": plus_minus,
        "half_width": half_width,
        "bounds": bounds,
        "share": share,
        "measure_title": measure_title,
        "mean_gap": mean_gap,
    }
    script = loader.get_source(environment, SCRIPT)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    trusted = {"script": script, "island": data_island(island)}
    return environment.get_template(name).render(
        variables=variables(),
        script_hash=digest,
        REWARD=REWARD,
        **{key: Markup(text) for key, text in trusted.items()},  # noqa: S704  # our own script; the island is escaped
        **values,
    )


def bounds(estimate: Estimate | None, digits: int = 2) -> str:
    """`0.31 [0.12, 0.49]`; a dash for nothing."""
    if estimate is None:
        return "-"
    # Adding 0 turns -0.0 into 0.0.
    mean, low, high = (
        f"{round(value, digits) + 0.0:.{digits}f}" for value in (estimate.mean, estimate.low, estimate.high)
    )
    return f"{mean} [{low}, {high}]"


def half_width(estimate: Estimate | None) -> str:
    """`1.83 +-0.04`, as in front.json's tables."""
    return plus_minus(None if estimate is None else asdict(estimate))


def mean_gap(line: MeasureComparison, kl_limits: tuple[float, float] | None) -> Estimate | None:
    """The area between two fronts per nat: their mean difference of reward; None where they share no range of KL."""
    if line.area is None or kl_limits is None:
        return None
    gap, width = line.area.difference, kl_limits[1] - kl_limits[0]
    return Estimate(gap.mean / width, gap.low / width, gap.high / width)


def share(value: float, low: float, high: float) -> str:
    """`61% [55, 67]`."""
    return f"{100 * value:.0f}% [{100 * low:.0f}, {100 * high:.0f}]"


def data_island(document: Mapping[str, Any]) -> str:
    """JSON that is inert inside a script element: no `<`, `>` or `&` is left in it."""
    text = json.dumps(document, sort_keys=True, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
