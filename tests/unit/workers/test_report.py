"""The report worker over a store: files and views, half a run, missing renderer, altered points, lineage."""

import csv
import dataclasses
import io
import json

import pytest
import structlog

from tests.builders.evaluations import publish_evaluation, publish_merge, publish_rl, publish_sft
from tests.builders.fronts import make_run
from warpctl import artifacts
from warpctl.errors import CorruptError, InputError
from warpctl.reports import render
from warpctl.reports.page import NOTICE, TINY_NOTICE
from warpctl.reports.reading import read_evaluated
from warpctl.reports.summary import front_table, load_front
from warpctl.spec.stage_input import ReportTask, StageInput, StageKind
from warpctl.storage.artifact import Artifact
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.storage.views import Views
from warpctl.workers import report as report_worker
from warpctl.workers.harness import Context
from warpctl.workers.report import main

SPEC = {"name": "demo", "namespace": "default", "seed": 7, "training": {"steps": [4], "maxKl": "5"}}
METRICS = b"".join(
    json.dumps({"step": step, "evaluation/kl": kl, "evaluation/reward": reward}).encode() + b"\n"
    for step, kl, reward in [(0, 0.0, 0.0), (2, 1.0, 0.4), (4, 3.0, 0.9)]
)
MERGE = {
    "members": ["member/1", "member/2"],
    "summary": {"cosine": 0.2},
    "groups": [
        {
            "group": name,
            "norms": [1.0, 2.0],
            "cosines": [[1.0, 0.2], [0.2, 1.0]],
            "weightCosines": [[1.0, 0.999], [0.999, 1.0]],
            "initNorm": 10.0,
            "mergedNorm": 1.5,
            "degenerate": [],
        }
        for name in ("model.embed_tokens", "model.layers.0")
    ],
}


@pytest.fixture
def no_pictures(monkeypatch):
    """Without the seconds that drawing takes."""
    monkeypatch.setattr(report_worker, "has_renderer", lambda: False)
    monkeypatch.setattr(render, "to_svg", None)


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def context_for(store, inputs, *, spec=None):
    stage = StageInput(
        stage_id="report/final",
        kind=StageKind.REPORT,
        key="f" * 64,
        attempt_id="a1",
        namespace="default",
        run="demo",
        storage=store.root,
        inputs=tuple(inputs),
        task=ReportTask.model_validate(
            {"confidenceLevel": "0.95", "hypervolume": {"maxKl": "20"}, "spec": SPEC if spec is None else spec}
        ),
    )
    return Context(stage, store, Publication(store, stage), structlog.stdlib.get_logger())


def view(store, name):
    """What the run's engine shows of the published report."""
    Views(store, "default", "demo").show("report", "f" * 64)
    return store.read(artifacts.report("default", "demo", name))


def evaluations(store):
    """Two iterations, the first with its RL runs as parents."""
    run, sft = make_run(iterations=2), publish_sft(store)
    members = [publish_rl(store, METRICS, member=member) for member in (1, 2)]
    first = [pair for pair in run if pair[0].iteration == 1]
    second = [pair for pair in run if pair[0].iteration == 2]
    return [
        publish_evaluation(store, first, stage_id="evaluate/1", inputs=[sft, *members, publish_merge(store, MERGE)]),
        publish_evaluation(store, second, stage_id="evaluate/2", inputs=[sft]),
    ]


def test_the_report_is_published_and_shown_with_the_same_bytes(store):
    pytest.importorskip("vl_convert")

    main(context_for(store, evaluations(store)))

    artifact = Artifact.load(store, "report", "f" * 64)
    assert artifact.names() == ("front.csv", "front.json", "front.png", "front.svg", "report.html")
    for name in artifact.names():
        assert view(store, name) == artifact.read(name)
    assert len(list(csv.DictReader(io.StringIO(view(store, "front.csv").decode(), newline="")))) == 15
    assert view(store, "front.png").startswith(b"\x89PNG")


def test_the_page_has_charts_completions_trajectories_merges_and_the_whole_lineage(store):
    pytest.importorskip("vl_convert")

    main(context_for(store, evaluations(store)))

    page = view(store, "report.html").decode()
    # Two rewards in two sizes, three of length and self-similarity, two of layers.
    assert page.count("<figure") == 2 + 3 + 2
    assert page.count('role="img"') == 2 * 2 + 3 + 2
    assert "Dotted lines were evaluated while training, on fewer prompts." in page
    assert page.count('class="sample"') == 6 + 3
    for stage_id in ("import/sft", "rl/1/1", "rl/1/2", "merge/1", "evaluate/1", "evaluate/2"):
        assert f">{stage_id}<" in page
    assert "Iteration 1: 2 members, cosine of whole task vectors 0.200" in page
    assert "&#34;seed&#34;: 7" in page
    assert "run 7, evaluation 0" in page
    assert TINY_NOTICE.replace("'", "&#39;") in page
    assert NOTICE not in page


@pytest.mark.usefixtures("no_pictures")
def test_front_json_has_win_rates_and_differences_too(store):
    main(context_for(store, evaluations(store)))

    document = json.loads(view(store, "front.json"))
    first = document["winRates"][0]
    assert (first["first"], first["second"], first["judge"]) == ("merged (LITI 1), iteration 1", "SFT", "truth")
    (difference,) = document["differences"]
    assert (difference["first"], difference["second"], difference["isPaired"]) == ("iteration 1", "iteration 2", True)
    area = difference["measures"]["truth"]["area"]
    assert area["difference"]["mean"] == pytest.approx(area["second"]["mean"] - area["first"]["mean"])


@pytest.mark.usefixtures("no_pictures")
def test_status_finds_the_front_with_the_best_point_within_the_specs_kl_budget(store):
    main(context_for(store, evaluations(store)))

    Views(store, "default", "demo").show("report", "f" * 64)
    table = front_table(load_front(store, namespace="default", name="demo"))

    # The merged policies lie beyond the budget of 5 nats: the best is a LITI rate below 1.
    assert table.best.startswith("best with KL at most 5: iteration 2, LITI 0.75, held-out truth ")


@pytest.mark.usefixtures("no_pictures")
def test_a_spec_without_a_kl_budget_has_the_default_of_the_schema_and_null_has_none(store):
    inputs = evaluations(store)

    found = []
    for spec in ({}, {"training": {"maxKl": "Unlimited"}}):
        files = report_worker.make_files(*arguments(store, inputs, spec), run="ml/demo")
        found.append(json.loads(files["front.json"])["maxKl"])

    assert found == [200.0, None]


def arguments(store, inputs, spec):
    task = context_for(store, inputs, spec=spec).stage_input.task
    artifacts_read = [Artifact.of(store, artifact) for artifact in inputs]
    return store, task, artifacts_read, read_evaluated(store, artifacts_read)


@pytest.mark.usefixtures("no_pictures")
def test_half_a_run_gives_half_a_report(store):
    main(context_for(store, evaluations(store)[:1]))

    document = json.loads(view(store, "front.json"))
    assert {point["iteration"] for point in document["points"]} == {0, 1}


@pytest.mark.usefixtures("no_pictures")
def test_without_vl_convert_the_tables_come_with_one_warning(store):
    inputs = evaluations(store)

    with structlog.testing.capture_logs() as lines:
        main(context_for(store, inputs))

    assert Artifact.load(store, "report", "f" * 64).names() == ("front.csv", "front.json", "report.html")
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [(line["event"], line["hint"]) for line in warnings] == [
        ("no charts: vl-convert is not installed", "pip install 'warpctl[report]'")
    ]
    assert "the renderer is not installed" in view(store, "report.html").decode()


@pytest.mark.usefixtures("no_pictures")
def test_two_reports_of_the_same_evaluations_are_the_same_bytes(store):
    inputs = evaluations(store)

    first = report_worker.make_files(*arguments(store, inputs, SPEC), run="ml/demo")
    second = report_worker.make_files(*arguments(store, inputs, SPEC), run="ml/demo")

    assert first["report.html"] == second["report.html"]
    assert first["front.csv"] == second["front.csv"]


def test_a_point_that_was_altered_is_not_shown(store):
    inputs = evaluations(store)
    named, point = make_run(iterations=1)[-1]
    better = dataclasses.replace(point, reward=tuple(value + 1 for value in point.reward))
    store.write(artifacts.point(named.point_key), better.to_bytes())

    with pytest.raises(CorruptError, match="not the point that was evaluated"):
        main(context_for(store, inputs))


def test_a_point_that_is_gone_is_named_with_what_to_do(store):
    inputs = evaluations(store)
    named = make_run(iterations=1)[-1][0]
    store.delete(artifacts.point(named.point_key))

    with pytest.raises(InputError, match="liti/1 is gone") as caught:
        main(context_for(store, inputs))
    assert "only this point" in caught.value.hint


@pytest.mark.usefixtures("no_pictures")
def test_ancestors_that_were_collected_and_broken_metrics_leave_a_smaller_report(store):
    run, sft = make_run(iterations=1), publish_sft(store)
    broken = publish_rl(store, b"{half a line", member=1)
    gone = publish_rl(store, METRICS, member=2)
    evaluation = publish_evaluation(store, run, stage_id="evaluate/1", inputs=[sft, broken, gone])
    store.delete_tree(artifacts.stage("rl", gone.key))

    main(context_for(store, [evaluation]))

    page = view(store, "report.html").decode()
    assert ">rl/1/1<" in page
    assert ">rl/1/2<" not in page
    assert "Dotted" not in page


@pytest.mark.usefixtures("no_pictures")
def test_large_models_get_the_notice_about_seeds(store, monkeypatch):
    monkeypatch.setattr("warpctl.reports.facts.TINY_WEIGHT_BYTES", 500)

    main(context_for(store, evaluations(store)))

    page = view(store, "report.html").decode()
    assert NOTICE in page
    assert "tiny run" not in page


def test_no_evaluation_is_refused(store):
    with pytest.raises(InputError, match="no evaluated point"):
        main(context_for(store, []))
