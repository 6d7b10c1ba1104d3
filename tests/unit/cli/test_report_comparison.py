"""`warpctl report --compare`: what it writes, and what it refuses in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.builders.fronts import make_run
from tests.unit.cli.conftest import Place, a_spec
from warpctl import artifacts
from warpctl.plan.stages import import_stages, stages
from warpctl.reports.evaluation import POINTS_FILE, write_names
from warpctl.spec.parse import parse_file, resolve_relative_uris
from warpctl.spec.stage_input import StageInput
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store


def write_run(place: Place, name: str, *, is_evaluated: bool = True, **changes: object) -> str:
    """A spec called `name` whose imports and first evaluation are published, as workers would."""
    spec = a_spec(**changes)
    spec["metadata"] = {"name": name, "namespace": "ml"}
    path = place.folder / f"{name}.yaml"
    with path.open("w") as file:
        YAML().dump(spec, file)
    run = resolve_relative_uris(parse_file(path), place.folder)
    store = Store.open(str(place.folder / "store"))

    def publish(stage, files):
        stage_input = StageInput(
            stage_id=stage.id,
            kind=stage.kind,
            key=stage.key,
            attempt_id=f"1-{name}",
            namespace="ml",
            run=name,
            storage=store.root,
            task=stage.task,
        )
        publication = Publication(store, stage_input)
        for file_name, data in files.items():
            publication.write_file(file_name, data)
        return publication.commit().content_digest

    imported = {stage.key: publish(stage, {"data.txt": b"x"}) for stage in import_stages(run).values()}
    if is_evaluated:
        evaluated = make_run(iterations=1, members=1)
        for named, point in evaluated:
            store.create_once(artifacts.point(named.point_key), point.to_bytes())
        names = write_names([named for named, _ in evaluated])
        publish(stages(run, imported).stages["evaluate/1"], {POINTS_FILE: names})
    return path.name


@pytest.fixture
def two(tmp_path: Path) -> Place:
    """Runs `a` and `b` that differ in two Outcome fields, and in a Placement field that stands between these."""
    place = Place(tmp_path)
    write_run(place, "a")
    write_run(place, "b", training={"steps": [20], "microBatchSize": 2}, merge={"litiRate": "0.5"})
    return place


def test_two_runs_become_one_page_with_their_differences(two: Place, warpctl) -> None:
    pytest.importorskip("vl_convert")

    said = warpctl(two, "report", "--compare", "a.yaml", "b.yaml")

    assert said.code == 0, said.err
    page = two.folder / "a-vs-b.html"
    assert said.out.splitlines()[0].split() == ["FRONTS", "JUDGED", "BY", "MEAN", "GAP", "HYPERVOLUME"]
    # The same points: no difference, and no width either, since they are paired.
    assert said.out.splitlines()[1].split() == ["b", "-", "a", "reward", *["0.00", "[0.00,", "0.00]"] * 2]
    assert said.out.splitlines()[-1] == f"report: {page}"
    html = page.read_text()
    assert html.count('role="img"') == 4
    places = [html.index(f"spec.{path}<") for path in ("training.steps", "merge.litiRate", "training.microBatchSize")]
    assert places == sorted(places)
    assert '[10]</code></td><td class="text"><code>[20]' in html


def test_the_page_goes_where_it_is_wanted(two: Place, warpctl) -> None:
    said = warpctl(two, "report", "--compare", "a.yaml", "b.yaml", "--to", "both.html")
    missing = warpctl(two, "report", "--compare", "a.yaml", "b.yaml", "--to", "no/such/both.html")

    assert said.code == 0
    assert (two.folder / "both.html").stat().st_size > 10_000
    assert missing.code == 2
    assert missing.err.startswith("error: cannot write no/such/both.html: No such file or directory")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("--compare a.yaml", "--compare needs two or more runs, got 1"),
        ("a.yaml b.yaml", "one run at a time, got 2"),
        ("--compare a.yaml a.yaml", "a run cannot be compared with itself"),
        ("--compare --again a.yaml b.yaml", "--again is not for --compare"),
        ("a.yaml --to x.html", "--to is for --compare"),
        ("--compare a.yaml new.yaml", "new: nothing is evaluated yet, so there is no front to compare"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(two: Place, warpctl, arguments: str, error: str) -> None:
    write_run(two, "new", is_evaluated=False, training={"steps": [30]})

    said = warpctl(two, "report", *arguments.split())

    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"error: {error}\n")
    assert "hint: " in said.err
