"""Evaluated points as a chart shows them: which two quantities, which series, what is said of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from warpctl.reports.estimate import LITI_PREFIX, REWARD, Estimate, Front, FrontPoint
from warpctl.reports.evaluation import SFT_POINT
from warpctl.reports.front import non_dominated
from warpctl.reports.table import point_label, series_label
from warpctl.spec.decimals import decimal_text

KL, LENGTH, SELF_SIMILARITY = "kl", "length", "self-similarity"
KL_TITLE = "KL to the SFT policy (nats per completion, square-root scale)"


@dataclass(frozen=True)
class Plotted:
    """One point of a chart."""

    series: str
    kind: str
    """`sft`, `liti`, `member`."""
    rate: float
    label: str
    """Beside the marker; empty for none."""
    tip: str
    """What is said of it, title first, then a line each."""
    x: Estimate
    y: Estimate
    is_on_front: bool = False


@dataclass(frozen=True)
class Axis:
    """A title, and whether it is KL's scale."""

    title: str
    is_kl: bool = False


def measure_title(measure: str) -> str:
    """Of an axis or a chart."""
    return "trained-on reward" if measure == REWARD else f"held-out reward: {measure}"


def axis_of(quantity: str) -> Axis:
    """The axis of `KL`, `LENGTH`, `SELF_SIMILARITY`, `REWARD` or a held-out reward."""
    titles = {
        KL: KL_TITLE,
        LENGTH: "length (tokens per completion)",
        SELF_SIMILARITY: "self-similarity (0 to 1)",
    }
    return Axis(titles.get(quantity, measure_title(quantity)), is_kl=quantity == KL)


def value_of(point: FrontPoint, quantity: str) -> Estimate | None:
    """A quantity of a point; None for a held-out reward that it was not judged by."""
    named = {KL: point.kl, LENGTH: point.length, SELF_SIMILARITY: point.self_similarity}
    return named.get(quantity) or point.measure(quantity)


def plotted(front: Front, x: str, y: str) -> tuple[Plotted, ...]:
    """Every point that has both quantities. Where x is KL and y a reward, the non-dominated ones of the run are marked."""
    pairs = [
        (point, across, upright)
        for point in front.points
        if (across := value_of(point, x)) is not None and (upright := value_of(point, y)) is not None
    ]
    own = [pair for pair in pairs if not pair[0].named.control]
    best: set[int] = set()
    if own and x == KL and y in front.measures:
        flags = non_dominated([kl.mean for _, kl, _ in own], [reward.mean for _, _, reward in own])
        best = {id(point) for (point, _, _), flag in zip(own, flags, strict=True) if flag}
    return tuple(
        Plotted(
            series=series_label(point.named),
            kind=_kind(point.named.name),
            rate=0.0 if point.named.name == SFT_POINT else float(point.named.liti_rate),
            label=_label(point),
            tip=tip(point, front.measures),
            x=across,
            y=upright,
            is_on_front=id(point) in best,
        )
        for point, across, upright in pairs
    )


def _kind(name: str) -> str:
    return SFT_POINT if name == SFT_POINT else "liti" if name.startswith(LITI_PREFIX) else "member"


def _label(point: FrontPoint) -> str:
    """Controls run close to the front: their rates would hide those of the run."""
    named = point.named
    return decimal_text(named.liti_rate) if _kind(named.name) == "liti" and not named.control else ""


def tip(point: FrontPoint, measures: Sequence[str]) -> str:
    """All that is known of a point, a line each."""
    series, label = series_label(point.named), point_label(point.named)
    title = label if series == label else f"{series}, {label}"
    lines = [f"KL {_bounded(point.kl)} nats"]
    lines += [f"{measure_title(name)} {_bounded(value)}" for name in measures if (value := point.measure(name))]
    return "\n".join([title, *lines, f"length {point.length.mean:.1f} tokens"])


def _bounded(value: Estimate) -> str:
    return f"{value.mean:.2f} [{value.low:.2f}, {value.high:.2f}]"


def liti_line(points: Sequence[Plotted], series: str) -> list[Plotted]:
    """SFT, which belongs to every series, then the series' LITI rates."""
    rates = sorted((each for each in points if each.series == series and each.kind == "liti"), key=lambda p: p.rate)
    return [*(point for point in points if point.kind == SFT_POINT and rates), *rates]
