"""Fronts of several runs on one page: what each run puts out, paired differences to the first run, and how the specs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from warpctl.errors import InputError
from warpctl.reports.comparison import Comparison, compare, output_line
from warpctl.reports.contrasts import FrontContrast
from warpctl.reports.documents import contrasts_document
from warpctl.reports.estimate import Evaluated, Front, estimate_front
from warpctl.reports.evaluation import SFT_POINT
from warpctl.reports.facts import StageFacts, is_tiny
from warpctl.reports.figures import Draw, Figure, legend, scatter_figure, sentence
from warpctl.reports.page import NOTICE, TINY_NOTICE, render_template
from warpctl.reports.palette import SFT_SERIES
from warpctl.reports.plotted import KL, Plotted, axis_of, measure_title, plotted
from warpctl.reports.table import point_label

TEMPLATE = "comparison.html.j2"


@dataclass(frozen=True)
class RunEvaluations:
    """One run, as far as it is evaluated."""

    name: str
    evaluated: Sequence[Evaluated]
    stages: Sequence[StageFacts]


@dataclass(frozen=True)
class SpecDifference:
    """A field that the runs do not share."""

    path: str
    change_class: str
    values: Sequence[str]
    """One a run."""


@dataclass(frozen=True)
class RunFront:
    """What a run puts out: SFT and the LITI rates of its last iteration."""

    name: str
    iteration: int
    front: Front
    sft: str
    """Content digest of its SFT policy; empty when the evaluation does not say."""
    stages: Sequence[StageFacts]


@dataclass(frozen=True)
class RunsCompared:
    """Everything that the page shows."""

    runs: Sequence[RunFront]
    differences: Sequence[FrontContrast]
    """Every further run minus the first."""
    measures: Sequence[str]
    """The rewards that all runs were judged by."""

    def notes(self) -> list[str]:
        """What a reader must know before believing a difference."""
        return [
            f"{each.second} and {each.first}: {note}" for each in self.differences for note in each.comparison.notes
        ]


def compare_runs(runs: Sequence[RunEvaluations], *, confidence_level: float, max_kl: float) -> RunsCompared:
    """Fronts and differences. InputError where they mean nothing: another SFT policy, no reward in common, no front yet."""
    first, *others = [_front(run, confidence_level, max_kl) for run in runs]
    for other in others:
        if other.sft != first.sft:
            raise InputError(
                f"{first.name} and {other.name} start from different SFT policies ({first.sft[:12]}, {other.sft[:12]}): "
                "their KLs are to different policies, and no point of one can be held against one of the other",
                hint="compare runs whose spec.models.sft has the same content",
            )
    found = [
        FrontContrast(
            first.name,
            other.name,
            compare(runs[0].evaluated, run.evaluated, confidence_level=confidence_level, max_kl=max_kl),
        )
        for run, other in zip(runs[1:], others, strict=True)
    ]
    measures = _common([each.comparison for each in found])
    if not measures:
        raise InputError(
            f"{', '.join(run.name for run in runs)} were judged by no reward in common",
            hint="give them the same spec.models.heldOutRewards: points are then evaluated anew, nothing is trained",
        )
    return RunsCompared((first, *others), tuple(found), measures)


def _front(run: RunEvaluations, level: float, max_kl: float) -> RunFront:
    try:
        line = output_line(run.evaluated)
    except InputError as error:
        raise InputError(f"{run.name}: {error.message}", hint=error.hint) from error
    front = estimate_front(line, confidence_level=level, max_kl=max_kl)
    return RunFront(run.name, line[-1][0].iteration, front, str(line[0][1].identity.get("sft", "")), run.stages)


def _common(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    names = [[line.measure for line in each.measures] for each in comparisons]
    return tuple(name for name in names[0] if all(name in each for each in names[1:]))


def comparison_figures(compared: RunsCompared, draw: Draw) -> tuple[Figure, ...]:
    """KL against each common reward, a series a run."""
    return tuple(
        scatter_figure(
            f"{sentence(measure_title(measure))} against KL",
            _points(compared.runs, measure),
            axis_of(KL),
            axis_of(measure),
            draw,
            prefix=f"runs-{number}",
        )
        for number, measure in enumerate(compared.measures)
    )


def _points(runs: Sequence[RunFront], measure: str) -> list[Plotted]:
    """One SFT point where all runs share it; else each line starts at its run's own."""
    is_shared = len({run.front.points[0].named.point_key for run in runs}) == 1
    found: list[Plotted] = []
    for number, run in enumerate(runs, start=1):
        for point in plotted(run.front, KL, measure):
            is_sft = point.kind == SFT_POINT
            if is_sft and is_shared:
                found += [point] if number == 1 else []
                continue
            kind = "liti" if is_sft else point.kind
            tip = f"{run.name}, {point.tip}"
            found.append(replace(point, series=f"run {number}", kind=kind, tip=tip, is_on_front=False))
    return found


def render_comparison(
    compared: RunsCompared,
    *,
    figures: Sequence[Figure],
    spec_differences: Sequence[SpecDifference],
) -> str:
    """The whole page."""
    series = [f"run {number}" for number in range(1, len(compared.runs) + 1)]
    names = [f"{run.name} (iteration {run.iteration})" for run in compared.runs]
    is_sft_shared = len({run.front.points[0].named.point_key for run in compared.runs}) == 1
    shown = [SFT_SERIES, *series] if is_sft_shared else series
    every_stage = [stage for run in compared.runs for stage in run.stages]
    return render_template(
        TEMPLATE,
        compared=compared,
        figures=figures,
        spec_differences=spec_differences,
        notice=TINY_NOTICE if is_tiny(every_stage) else NOTICE,
        notes=compared.notes(),
        entries=legend(series),
        legend=legend(shown, [SFT_SERIES, *names] if is_sft_shared else names),
        point_label=point_label,
        island=comparison_document(compared),
    )


def comparison_document(compared: RunsCompared) -> Mapping[str, Any]:
    """The numbers as plain data."""
    return {
        "runs": [{"name": run.name, "iteration": run.iteration, "sft": run.sft} for run in compared.runs],
        "measures": list(compared.measures),
        "differences": contrasts_document(compared.differences),
    }
