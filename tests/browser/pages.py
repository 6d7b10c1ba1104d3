"""Report pages as the worker makes them, from synthesised evaluations in a store."""

from __future__ import annotations

import json
from pathlib import Path

from tests.builders.evaluations import publish_evaluation, publish_merge, publish_rl, publish_sft
from tests.builders.fronts import make_run
from warpctl.reports.comparison_page import (
    RunEvaluations,
    SpecDifference,
    compare_runs,
    comparison_figures,
    render_comparison,
)
from warpctl.reports.estimate import Evaluated
from warpctl.reports.reading import read_evaluated
from warpctl.reports.render import to_svg
from warpctl.spec.stage_input import InputArtifact, ReportTask
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store
from warpctl.workers.report import PAGE_FILE, make_files

HOSTILE = (
    "<script>document.title='hacked';alert(1)</script><img src=x onerror=\"document.title='hacked'\"> </blockquote></main>"
    " {{ 7 * 7 }} \u202e" + "unbroken" * 600
)
RIGHT_TO_LEFT = "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd"
CONTROLS = ("NoAnchor", "SftAnchor", "ComputeMatched")
RATES = ("0.1", "0.3", "0.5", "0.8", "1")


def hostile_five(folder: Path) -> Path:
    """Five iterations of five RL runs, all controls, trajectories, 30 layers; hostile and right-to-left completions."""
    run = make_run(iterations=5, members=5, rates=RATES, controls=CONTROLS, completion=HOSTILE)
    rtl = make_run(iterations=5, members=5, rates=RATES, controls=CONTROLS, completion=RIGHT_TO_LEFT)
    # Every SFT point speaks from right to left.
    mixed = [other if own[0].name == "sft" else own for own, other in zip(run, rtl, strict=True)]
    return _page(folder, mixed, iterations=5, members=5, num_layers=28)


def plain_one(folder: Path) -> Path:
    """One iteration of one RL run, without any held-out reward."""
    return _page(folder, make_run(iterations=1, members=1, held_out=False), iterations=1, members=1, num_layers=2)


def partly_judged(folder: Path) -> Path:
    """Two iterations; the second one was not judged by the held-out reward."""
    judged, not_judged = make_run(iterations=2), make_run(iterations=2, held_out=False)
    mixed = [
        second if second[0].iteration == 2 and second[0].name != "sft" else first
        for first, second in zip(judged, not_judged, strict=True)
    ]
    return _page(folder, mixed, iterations=2, members=2, num_layers=2)


def two_runs(folder: Path) -> Path:
    """Two runs beside each other; a field of the spec is hostile."""
    runs = [
        RunEvaluations(name, make_run(iterations=iterations), ())
        for name, iterations in (("first-run", 1), ("second-run", 3))
    ]
    compared = compare_runs(runs, confidence_level=0.95, max_kl=50.0)
    page = render_comparison(
        compared,
        figures=comparison_figures(compared, to_svg),
        spec_differences=[SpecDifference("spec.models.sft.revision", "Outcome", [HOSTILE[:60], "main"])],
    )
    file = folder / PAGE_FILE
    file.write_text(page, encoding="utf-8")
    return file


def _page(folder: Path, run: list[Evaluated], *, iterations: int, members: int, num_layers: int) -> Path:
    store = Store.open(str(folder / "store"))
    sft = publish_sft(store)
    evaluations = []
    for iteration in range(1, iterations + 1):
        rl = [
            publish_rl(store, _metrics(iteration, member), iteration=iteration, member=member)
            for member in range(1, members + 1)
        ]
        merge = publish_merge(store, _merge(members, num_layers), iteration=iteration)
        own = [pair for pair in run if not pair[0].control and pair[0].iteration == iteration]
        evaluations.append(publish_evaluation(store, own, stage_id=f"evaluate/{iteration}", inputs=[sft, merge, *rl]))
    for control in dict.fromkeys(pair[0].control for pair in run if pair[0].control):
        own = [pair for pair in run if pair[0].control == control]
        evaluations.append(publish_evaluation(store, own, stage_id=f"control/{control}/evaluate", inputs=[sft]))
    file = folder / PAGE_FILE
    file.write_bytes(_files(store, evaluations)[PAGE_FILE])
    return file


def _files(store: Store, evaluations: list[InputArtifact]) -> dict[str, bytes]:
    artifacts = [Artifact.of(store, each) for each in evaluations]
    task = ReportTask.model_validate(
        {
            "confidenceLevel": "0.95",
            "hypervolume": {"maxKl": "50"},
            "spec": {"name": "demo", "training": {"steps": [4]}, "note": HOSTILE},
        }
    )
    return make_files(store, task, artifacts, read_evaluated(store, artifacts), run="ml/demo")


def _metrics(iteration: int, member: int) -> bytes:
    lines = [
        {"step": step, "evaluation/kl": 0.09 * member * step**1.5 + iteration / 9, "evaluation/reward": 0.15 * step}
        for step in range(12)
    ]
    return "\n".join(map(json.dumps, lines)).encode()


def _merge(members: int, num_layers: int) -> dict[str, object]:
    names = ["model.embed_tokens", *(f"model.layers.{i}" for i in range(num_layers)), "model.norm"]
    indices = range(members)
    return {
        "members": [f"member/{member + 1}" for member in indices],
        "summary": {"cosine": 0.02 if members > 1 else None},
        "groups": [
            {
                "group": name,
                "norms": [1.0 + 0.02 * member for member in indices],
                "cosines": [[1.0 if a == b else 0.01 * (a + b + place % 5) for b in indices] for a in indices],
                "weightCosines": [[1.0 if a == b else 0.9995 for b in indices] for a in indices],
                "initNorm": 30.0 + place,
                "mergedNorm": 1.02,
                "degenerate": [],
            }
            for place, name in enumerate(names)
        ],
    }
