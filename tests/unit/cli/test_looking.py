"""Commands that look: plan, status, logs, report, gc, schema, version. Their output formats agree with each other."""

from __future__ import annotations

import json
import shutil

import pytest
from ruamel.yaml import YAML

from tests.unit.cli.conftest import Place
from tests.unit.cli.golden import check
from tests.unit.cli.test_run import steady

STAGES = ["import/sft", "import/prompts", "rl/1/1", "merge/1", "evaluate/1", "report/final"]


def test_a_plan_before_the_first_run_knows_the_imports_only(place: Place, warpctl) -> None:
    said = warpctl(place, "plan", "demo.yaml")

    assert said.code == 0
    check("plan-new.txt", said.out)
    assert not (place.folder / "store").exists()
    assert not (place.folder / "state").exists()


def test_detailed_exit_codes_tell_nothing_something_and_error_apart(finished: Place, place: Place, warpctl) -> None:
    nothing = warpctl(finished, "plan", "demo.yaml", "--detailed-exitcode")
    something = warpctl(place, "plan", "demo.yaml", "--detailed-exitcode")
    error = warpctl(place, "plan", "no.yaml", "--detailed-exitcode")

    assert (nothing.code, something.code, error.code) == (0, 1, 2)
    assert "Nothing in the spec has changed since the last run.\n\nPlan: 0 to run, 6 reused." in nothing.out
    assert error.err.startswith("error: no.yaml there is no such file")


def test_a_plan_says_what_each_change_costs(copied: Place, warpctl) -> None:
    copied.write_spec(
        merge={"litiRate": "0.5"},
        iterations=2,
        parallelism=1,
        training={"steps": [10], "microBatchSize": 8},
        evaluation={"seed": 1},
    )

    said = warpctl(copied, "plan", "demo.yaml")

    check("plan-changed.txt", said.out)


def test_a_plan_is_the_same_in_every_format(finished: Place, warpctl) -> None:
    as_json = json.loads(warpctl(finished, "plan", "demo.yaml", "-o", "json").out)
    as_yaml = YAML(typ="safe").load(warpctl(finished, "plan", "demo.yaml", "-o", "yaml").out)
    names = warpctl(finished, "plan", "demo.yaml", "-o", "name").out.split()
    wide = warpctl(finished, "plan", "demo.yaml", "-o", "wide").out

    assert as_json == as_yaml
    assert [stage["id"] for stage in as_json["stages"]] == names == STAGES
    assert as_json["toRun"] == 0
    assert all(stage["key"] in wide for stage in as_json["stages"])


def test_status_by_spec_and_by_name(finished: Place, warpctl) -> None:
    by_spec, by_name = warpctl(finished, "status", "demo.yaml"), warpctl(finished, "status", "ml/demo")

    assert by_spec.code == by_name.code == 0
    assert by_spec.out == by_name.out
    assert by_spec.out.startswith("ml/demo  Succeeded  iteration 1/1  stages 6/6\n")
    assert "\u2714 Succeeded" in by_spec.out
    assert "best with KL at most 200: iteration 1, merged (LITI 1)" in by_spec.out
    assert by_name.err == "\nnext:\n  warpctl report ml/demo\n  warpctl export ml/demo --max-kl 10 --to DIR\n"


def test_status_as_data(finished: Place, warpctl) -> None:
    said = warpctl(finished, "status", "demo", "-o", "json")
    document = json.loads(said.out)

    assert [stage["id"] for stage in document["stages"]] == STAGES
    assert {each["type"]: each["status"] for each in document["conditions"]}["Succeeded"] == "True"
    assert document == YAML(typ="safe").load(warpctl(finished, "status", "demo", "-o", "yaml").out)
    assert warpctl(finished, "status", "demo", "-o", "name").out.split() == STAGES
    assert said.err == ""


def test_status_can_be_asked_for_an_exit_code(finished: Place, place: Place, warpctl) -> None:
    assert warpctl(finished, "status", "demo", "--exit-code").code == 0
    assert warpctl(place, "status", "demo.yaml", "--exit-code").code == 1
    assert warpctl(place, "status", "demo.yaml").code == 0


def test_a_name_that_two_namespaces_use_must_be_qualified(copied: Place, warpctl) -> None:
    state = next((copied.folder / "state").iterdir())
    shutil.copytree(state / "ml", state / "other")

    said = warpctl(copied, "status", "demo")

    assert said.code == 2
    assert said.err.startswith('error: "demo" is the name of 2 runs: ml/demo, other/demo\nhint: give namespace/name')


def test_logs_of_all_stages_say_whose_a_line_is(finished: Place, warpctl) -> None:
    every, one = warpctl(finished, "logs", "demo"), warpctl(finished, "logs", "demo", "rl/1/1")

    assert [line.split(" | ")[0] for line in every.out.splitlines()] == STAGES
    assert one.out.startswith("rl/1/1 attempt 1-")
    assert warpctl(finished, "logs", "demo", "--follow").out == every.out


def test_logs_of_a_machine_that_ran_nothing_come_from_the_store(copied: Place, warpctl) -> None:
    shutil.rmtree(copied.folder / "state")

    assert warpctl(copied, "logs", "demo.yaml", "rl/1/1").out == "from the store\n"
    assert warpctl(copied, "logs", "demo.yaml", "rl/1/1", "--attempt", "1").out == "from the store\n"
    assert warpctl(copied, "logs", "demo.yaml", "rl/1/1", "--attempt", "2").code == 2


def test_the_report_is_found_and_made_again(copied: Place, warpctl) -> None:
    page = copied.folder / "store/runs/ml/demo/report/report.html"
    found = warpctl(copied, "report", "demo")
    page.unlink()
    made = warpctl(copied, "report", "demo")
    again = warpctl(copied, "report", "demo", "--again")

    assert found.code == made.code == again.code == 0, again.err
    assert found.out == made.out == again.out
    assert f"report: {page}\n" in found.out
    assert "making" not in found.err
    assert "making" not in made.err  # the views are brought back from the published report
    assert again.err.startswith("making report/final\n")
    assert page.exists()
    assert warpctl(copied, "status", "demo", "--exit-code").code == 0


def test_gc_of_a_store_where_no_run_wants_anything_warns_and_wants_to_be_told_twice(copied: Place, warpctl) -> None:
    for wanted in (copied.folder / "store" / "runs").rglob("wanted.json"):
        wanted.unlink()
    all_files = ("gc", "store", "--min-age", "0s")
    shown = warpctl(copied, *all_files)
    refused = warpctl(copied, *all_files, "--yes")
    stages = copied.folder / "store" / "stages"

    assert shown.code == 0
    assert shown.err.startswith(f"warning: no run in file://{copied.folder}/store says what it wants")
    assert "--yes --even-without-runs deletes all the same" in shown.err
    assert (refused.code, refused.err.startswith("error: no run in ")) == (2, True)
    assert list(stages.rglob("committed.json"))
    assert warpctl(copied, *all_files, "--yes", "--even-without-runs").code == 0
    assert not list(stages.rglob("committed.json"))


def test_gc_shows_first_and_deletes_when_told(copied: Place, warpctl) -> None:
    stray = copied.folder / "store/stages/rl" / ("e" * 64) / "attempts/1-x/files/model.safetensors"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"x" * 1500)
    young = warpctl(copied, "gc", "store")
    shown = warpctl(copied, "gc", "demo.yaml", "--min-age", "0s")
    names = warpctl(copied, "gc", "store", "--min-age", "0s", "-o", "name").out.split()
    swept = warpctl(copied, "gc", "store", "--min-age", "0s", "--yes")

    assert young.out == "Nothing to collect.\n"
    assert "  1      1.5 kB\n\nTo delete: 1 file, 1.5 kB.\n" in shown.out
    assert shown.err == "\nnext:\n  warpctl gc demo.yaml --min-age 0s --yes  # deletes these files\n"
    assert f"stages/rl/{'e' * 64}/attempts/1-x/files/model.safetensors" in names
    assert swept.code == 0
    assert f"deleted {len(names)} file" in swept.err
    assert not stray.exists()
    assert warpctl(copied, "status", "demo", "--exit-code").code == 0


def test_schema_describes_a_field_and_validates_a_spec(place: Place, warpctl) -> None:
    import jsonschema

    text = warpctl(place, "schema", "spec.merge.litiRate").out
    schema = json.loads(warpctl(place, "schema", "--json").out)
    document = YAML(typ="safe").load((place.folder / "demo.yaml").read_text())

    assert text.startswith('spec.merge.litiRate  (decimal, in [0, 1], default "0.3")\n    eta: ')
    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "kind": "Run"}, schema)


def test_version_names_program_schema_and_layout(place: Place, warpctl) -> None:
    lines = warpctl(place, "version").out.splitlines()

    assert lines[0].startswith("warpctl 0.")
    assert lines[1] == "schema warpctl.dev/v1alpha1, store layout v1"


def test_a_stalled_run_shows_its_reason_in_status(place: Place, warpctl) -> None:
    place.call("run", "demo.yaml", fake={"rl/1/1": "final"})
    said = warpctl(place, "status", "demo")

    assert "\u2718 Stalled" in said.out
    assert "rl/1/1 stalled: attempt 1 cannot succeed: exit code 42: the reward is not a number" in steady(
        said.out, place
    )
    assert "warpctl run demo  # tries again" in said.err
