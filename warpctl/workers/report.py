"""Make the report: page, pictures, CSV and JSON of the fronts so far.

Inputs: the finished evaluations, `evaluate/<stage id>`. Half a run gives half a report. Everything is read from published
points and manifests; whoever drives the run copies the files to its views, runs/<namespace>/<name>/report/.
Left out: anything that would decide something. The report is a view and never an input. No torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from warpctl import artifacts
from warpctl.errors import CorruptError, InputError
from warpctl.reports.best import best_point
from warpctl.reports.charts import Trajectory, front_chart, front_charts
from warpctl.reports.estimate import REWARD, Evaluated, Front, distinct, estimate_front
from warpctl.reports.evaluation import POINTS_FILE, SFT_POINT, EvaluatedPoint, NamedPoint, read_names
from warpctl.reports.facts import is_tiny, read_lineage
from warpctl.reports.page import Chart, Report, render_page
from warpctl.reports.render import has_renderer, to_png, to_svg
from warpctl.reports.samples import draw_samples
from warpctl.reports.summary import FRONT_FILE
from warpctl.reports.table import front_document, front_rows, to_csv
from warpctl.reports.trajectories import read_trajectories
from warpctl.spec.stage_input import ReportTask
from warpctl.spec.training import Sampling, Training
from warpctl.storage.artifact import Artifact
from warpctl.storage.manifest import digest_of
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
    files = make_files(context, stage.task, evaluations, evaluated)
    for name, data in files.items():
        context.publication.write_file(name, data)
    context.publication.commit(outcome={"points": len(evaluated)})


def read_evaluated(store: Store, evaluations: Sequence[Artifact]) -> tuple[Evaluated, ...]:
    """Every named point of the evaluations, each stored point read and verified once."""
    points: dict[str, EvaluatedPoint] = {}
    evaluated: list[Evaluated] = []
    for artifact in evaluations:
        for named in read_names(artifact.read(POINTS_FILE)):
            if named.digest not in points:
                points[named.digest] = _read_point(store, named)
            evaluated.append((named, points[named.digest]))
    return distinct(evaluated)


def _read_point(store: Store, named: NamedPoint) -> EvaluatedPoint:
    path = artifacts.point(named.point_key)
    data = store.read_or_none(path)
    if data is None:
        raise InputError(
            f"the evaluated point {named.name} is gone from {store.uri(path)}",
            hint="delete the evaluation's marker, then run the same command: only this point is computed again",
        )
    if digest_of(data) != named.digest:
        raise CorruptError(f"{store.uri(path)} is not the point that was evaluated: its bytes were altered")
    return EvaluatedPoint.from_bytes(data, name=store.uri(path))


def make_files(
    context: Context, task: ReportTask, evaluations: Sequence[Artifact], evaluated: Sequence[Evaluated]
) -> dict[str, bytes]:
    """The report's files by name, report.html last."""
    stage, store = context.stage_input, context.store
    training = _training(task.spec)
    max_kl = Training.model_validate({"steps": [1], **{k: v for k, v in training.items() if k == "maxKl"}}).max_kl
    front = estimate_front(
        evaluated, confidence_level=float(task.confidence_level), max_kl=float(task.hypervolume.max_kl)
    )
    document = front_document(
        front, run=f"{stage.namespace}/{stage.run}", max_kl=None if max_kl is None else float(max_kl)
    )
    manifests, facts = read_lineage(store, [artifact.manifest for artifact in evaluations])
    trajectories = read_trajectories(store, manifests)
    files = {
        "front.csv": to_csv(front_rows(front)).encode(),
        FRONT_FILE: json.dumps(document, sort_keys=True, indent=1, allow_nan=False).encode(),
    }
    charts: list[Chart] = []
    if has_renderer():
        charts = [
            Chart(_title(name), to_svg(front_chart(front, name, trajectories=trajectories))) for name in front.measures
        ]
        files |= _pictures(front, trajectories)
    else:
        context.log.warning("no charts: vl-convert is not installed", hint="pip install 'warpctl[report]'")
    page = render_page(
        Report(
            document=document,
            charts=charts,
            samples=draw_samples(_shown(front, evaluated, max_kl=document["maxKl"])),
            stages=facts,
            spec=task.spec,
            is_tiny=is_tiny(facts),
            temperature=_temperature(training),
            has_trajectories=bool(trajectories),
        )
    )
    return {**files, PAGE_FILE: page.encode()}


def _pictures(front: Front, trajectories: Sequence[Trajectory]) -> dict[str, bytes]:
    spec = front_charts(front, trajectories=trajectories)
    return {"front.svg": to_svg(spec).encode(), "front.png": to_png(spec)}


def _title(measure: str) -> str:
    return "Trained-on reward" if measure == REWARD else f"Held-out reward {measure}"


def _shown(front: Front, evaluated: Sequence[Evaluated], *, max_kl: float | None) -> list[Evaluated]:
    """Whose completions are shown: SFT, the last merged policy, the best point."""
    own = [pair for pair in evaluated if not pair[0].control]
    merged = [pair for pair in own if pair[0].name == "liti/1"]
    best = best_point(front, max_kl=max_kl)
    wanted = [*(pair[0] for pair in own if pair[0].name == SFT_POINT), *(pair[0] for pair in merged[-1:])]
    wanted += [best.point.named] if best else []
    return [pair for pair in own if pair[0] in wanted]


def _training(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    training = spec.get("training", {})
    return training if isinstance(training, Mapping) else {}


def _temperature(training: Mapping[str, Any]) -> str:
    sampling = training.get("sampling", {})
    return str(sampling.get("temperature", Sampling().temperature))


if __name__ == "__main__":
    run(main)
