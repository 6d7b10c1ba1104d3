"""Make the report: page, pictures, CSV and JSON of the fronts so far.

Inputs: the finished evaluations, `evaluate/<stage id>`. Half a run gives half a report. Everything is read from published
points and manifests; whoever drives the run copies the files to its views, runs/<namespace>/<name>/report/.
Left out: anything that would decide something. The report is a view and never an input. No torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warpctl.errors import InputError
from warpctl.reports.best import ChosenPoint, best_point
from warpctl.reports.charts import front_charts
from warpctl.reports.contrasts import FrontContrast, contrasts
from warpctl.reports.documents import contrasts_document, win_rates_document
from warpctl.reports.estimate import Evaluated, Front, estimate_front
from warpctl.reports.evaluation import SFT_POINT
from warpctl.reports.facts import is_tiny, read_lineage
from warpctl.reports.figures import front_figures, merge_figures, text_figures
from warpctl.reports.merges import MergeFacts, read_merges
from warpctl.reports.page import Figures, Report, Seeds, render_page
from warpctl.reports.reading import read_evaluated
from warpctl.reports.render import has_renderer, to_png, to_svg
from warpctl.reports.samples import Sample, draw_samples, worst_regrets
from warpctl.reports.summary import FRONT_FILE
from warpctl.reports.table import front_document, front_rows, to_csv
from warpctl.reports.trajectories import Trajectory, read_trajectories
from warpctl.reports.win_rate import MERGED, WinRate, win_rates
from warpctl.spec.stage_input import ReportTask
from warpctl.spec.training import Sampling, Training
from warpctl.spec.warp_run import Evaluation, WarpRunSpec
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store
from warpctl.workers.harness import Context, run

PAGE_FILE = "report.html"


def main(context: Context) -> None:
    """Read the evaluations, make the files, publish them; the engine shows them (storage/views.py)."""
    stage, store = context.stage_input, context.store
    if not isinstance(stage.task, ReportTask):
        raise InputError(f"stage {stage.stage_id} is no report but: {stage.task.kind}")
    evaluations = [Artifact.of(store, artifact) for artifact in stage.inputs if artifact.role.startswith("evaluate/")]
    evaluated = read_evaluated(store, evaluations)
    if not has_renderer():
        context.log.warning("no charts: vl-convert is not installed", hint="pip install 'warpctl[report]'")
    files = make_files(store, stage.task, evaluations, evaluated, run=f"{stage.namespace}/{stage.run}")
    for name, data in files.items():
        context.publication.write_file(name, data)
    context.publication.commit(outcome={"points": len(evaluated)})


@dataclass(frozen=True)
class _Findings:
    """All numbers of the page."""

    front: Front
    best: ChosenPoint | None
    max_kl: float | None
    win_rates: tuple[WinRate, ...]
    contrasts: tuple[FrontContrast, ...]

    @classmethod
    def of(cls, task: ReportTask, evaluated: Sequence[Evaluated]) -> _Findings:
        level, corner = float(task.confidence_level), float(task.hypervolume.max_kl)
        given = {name: value for name, value in _training(task.spec).items() if name == "maxKl"}
        budget = Training.model_validate({"steps": [1], **given}).max_kl
        max_kl = None if budget is None else float(budget)
        front = estimate_front(evaluated, confidence_level=level, max_kl=corner)
        return cls(
            front=front,
            best=best_point(front, max_kl=max_kl),
            max_kl=max_kl,
            win_rates=win_rates(evaluated, confidence_level=level),
            contrasts=contrasts(evaluated, confidence_level=level, max_kl=corner),
        )

    def document(self, run: str) -> dict[str, Any]:
        """front.json."""
        return {
            **front_document(self.front, run=run, max_kl=self.max_kl),
            "winRates": win_rates_document(self.win_rates),
            "differences": contrasts_document(self.contrasts),
        }


def make_files(
    store: Store, task: ReportTask, evaluations: Sequence[Artifact], evaluated: Sequence[Evaluated], *, run: str
) -> dict[str, bytes]:
    """The report's files by name, report.html last; no pictures where there is no renderer."""
    findings = _Findings.of(task, evaluated)
    front, document = findings.front, findings.document(run)
    manifests, stages = read_lineage(store, [artifact.manifest for artifact in evaluations])
    trajectories, merges = read_trajectories(store, manifests), read_merges(store, manifests)
    sampling = _training(task.spec).get("sampling", {})
    samples, regrets = _samples(findings, evaluated)
    page = render_page(
        Report(
            document=document,
            figures=_figures(front, trajectories, merges),
            samples=samples,
            regrets=regrets,
            win_rates=findings.win_rates,
            contrasts=findings.contrasts,
            merges=merges,
            stages=stages,
            spec=task.spec,
            seeds=_seeds(task.spec),
            is_tiny=is_tiny(stages),
            temperature=str(sampling.get("temperature", Sampling().temperature)),
            top_p=str(sampling.get("topP", Sampling().top_p)),
            has_trajectories=bool(trajectories),
        )
    )
    return {
        "front.csv": to_csv(front_rows(front)).encode(),
        FRONT_FILE: json.dumps(document, sort_keys=True, indent=1, allow_nan=False).encode(),
        **(_pictures(front, trajectories) if has_renderer() else {}),
        PAGE_FILE: page.encode(),
    }


def _pictures(front: Front, trajectories: Sequence[Trajectory]) -> dict[str, bytes]:
    spec = front_charts(front, trajectories=trajectories)
    return {"front.svg": to_svg(spec).encode(), "front.png": to_png(spec)}


def _figures(front: Front, trajectories: Sequence[Trajectory], merges: Sequence[MergeFacts]) -> Figures:
    if not has_renderer():
        return Figures()
    return Figures(
        fronts=front_figures(front, to_svg, trajectories=trajectories),
        texts=text_figures(front, to_svg),
        merges=merge_figures(merges, to_svg),
    )


def _samples(findings: _Findings, evaluated: Sequence[Evaluated]) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Of SFT, the last merged policy and, last, the best point: at random, and where the best point is worst."""
    own = [pair for pair in evaluated if not pair[0].control]
    sft = [pair for pair in own if pair[0].name == SFT_POINT]
    merged = [pair for pair in own if pair[0].name == MERGED]
    best = [pair for pair in own if findings.best and pair[0] == findings.best.point.named]
    shown = [*sft, *(pair for pair in merged[-1:] if pair not in best), *(pair for pair in best if pair not in sft)]
    regrets: tuple[Sample, ...] = ()
    if sft and best and findings.best:
        regrets = worst_regrets(shown, sft=sft[0][1], chosen=best[0][1], judge=findings.best.measure)
    return draw_samples(shown), regrets


def _training(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    training = spec.get("training", {})
    return training if isinstance(training, Mapping) else {}


def _seeds(spec: Mapping[str, Any]) -> Seeds:
    evaluation = spec.get("evaluation", {})
    given = evaluation.get("seed") if isinstance(evaluation, Mapping) else None
    default = WarpRunSpec.model_fields["seed"].default
    return Seeds(run=spec.get("seed", default), evaluation=Evaluation().seed if given is None else given)


if __name__ == "__main__":
    run(main)
