"""What a user sees of a run in a cluster: diff, watch, status, logs, report, and kubectl's plugin, on a real API server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.commands import call, command_line, environment, spec_file
from tests.cluster.controllers import Place
from tests.cluster.harness import binaries
from tests.cluster.stand_in_workers import Decide, End, StandInWorkers, told_to
from warpctl import artifacts, names
from warpctl.kube.resources import PODS
from warpctl.spec.stage_input import StageInput
from warpctl.storage.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


def waiting_at(*stages: str) -> Decide:
    """Stand-ins of these stages go on until they are stopped, the others end well."""
    return lambda told, number: None if told.stage_id in stages else End()


def finish(place: Place, workers: StandInWorkers, kind: str) -> None:
    """Let the pod of this kind that still runs publish and end."""
    pods = place.api.list(PODS, place.namespace, labels=f"{names.KIND}={kind}").items
    pod = next(each for each in pods if each["status"].get("phase") == "Running")
    workers.publish(told_to(pod))
    workers.finish(pod["metadata"]["name"], End())


def test_diff_says_what_an_edit_reruns_cancels_and_reuses(place: Place, workers: StandInWorkers) -> None:
    def decide(told: StageInput, number: int) -> End | None:
        if told.stage_id != "rl/2/1":
            return End()
        said = {"done": 4, "total": 10, "unit": "steps", "elapsedSeconds": 2.0}
        Store.open(told.storage).write(
            artifacts.progress(told.kind, told.key, told.attempt_id), json.dumps(said).encode()
        )
        return None

    workers.decide = decide
    spec = spec_file(place)
    new = call(place, "diff", spec)
    assert new.code == 1
    assert "There is no such WarpRun in the cluster yet." in new.out

    place.controller()
    call(place, "apply", spec)
    place.wait(lambda: "rl/2/1 step 4/10" in place.condition("Ready").get("message", ""), "iteration 2 trains")
    same = call(place, "diff", spec)
    assert (same.code, "Nothing in the spec has changed" in same.out) == (0, True), same.out

    merge = {"litiRate": "0.5"}
    changed = call(place, "diff", spec_file(place, merge=merge))
    assert changed.code == 1, changed.err
    assert "Changes against the live run (generation 1)" in changed.out
    assert "spec.merge.litiRate" in changed.out
    assert "Cancelled: 1 running Job (rl/2/1 step 4/10); their resume states are kept" in changed.out
    for harmless in ({"iterations": 1}, {"suspend": True}, {"storage": {"uri": f"{place.store}-2"}}):
        said = call(place, "diff", spec_file(place, **harmless)).out
        assert "Cancelled: 1 running Job (rl/2/1 step 4/10)" in said, (harmless, said)
    assert "Cancelled" not in call(place, "diff", spec_file(place, iterations=3)).out
    document = json.loads(call(place, "diff", spec_file(place, merge=merge), "-o", "json").out)
    assert {"id": "rl/2/1", "gpuHours": "0.00", "isRunning": True} in document["atStake"]
    fates = {each["id"]: each["cache"] for each in document["stages"]}
    assert (fates["rl/1/1"], fates["merge/1"], fates["rl/2/1"]) == ("reused", "new", "new")
    assert call(place, "diff", str(place.folder / "nothing.yaml")).code == 2


def test_watch_tells_each_change_and_ends_with_the_run(place: Place, workers: StandInWorkers) -> None:
    workers.decide = waiting_at("rl/2/1")
    place.controller()
    call(place, "apply", spec_file(place))
    place.wait(lambda: "rl/2/1" in workers.stages.values(), "iteration 2 trains")

    with subprocess.Popen(
        command_line("watch", "demo"), env=environment(place), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as watch:
        assert watch.stderr is not None
        first = next(line for line in watch.stderr if "rl/2/1" in line)
        finish(place, workers, "rl")
        out, said = watch.communicate(timeout=120)

    assert (watch.returncode, out) == (0, "demo: Succeeded: every iteration is merged and evaluated\n")
    assert first == "rl/2/1 is running\n"
    assert "rl/2/1 finished" in said


def test_watch_exits_with_1_when_the_run_stalls(place: Place, workers: StandInWorkers) -> None:
    workers.decide = lambda told, number: End(42, message="no pad token") if told.stage_id == "rl/1/1" else End()
    place.controller()
    call(place, "apply", spec_file(place))

    seen = call(place, "watch", "demo")

    assert seen.code == 1
    assert "rl/1/1 stalled" in seen.err
    assert seen.out.startswith("demo: StageStalled: rl/1/1: attempt 1 cannot succeed: exit code 42: no pad token")
    assert "warpctl retry demo" in seen.err


def test_watch_exits_with_1_when_the_run_is_deleted(place: Place, workers: StandInWorkers) -> None:
    workers.decide = waiting_at("rl/1/1")
    place.controller()
    call(place, "apply", spec_file(place))
    with subprocess.Popen(
        command_line("watch", "demo"), env=environment(place), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as watch:
        assert watch.stderr is not None
        next(watch.stderr)
        call(place, "delete", "demo")
        out, said = watch.communicate(timeout=120)

    assert (watch.returncode, out) == (1, "")
    assert "error: WarpRun demo was deleted" in said


def test_watch_survives_an_api_server_that_restarts(api_cluster, place: Place, workers: StandInWorkers) -> None:
    workers.decide = waiting_at("rl/2/1")
    place.controller()
    call(place, "apply", spec_file(place))
    with subprocess.Popen(
        command_line("watch", "demo"), env=environment(place), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as watch:
        assert watch.stderr is not None
        for line in watch.stderr:
            if "rl/2/1" in line:
                break
        api_cluster.stop_apiserver(kill=True)
        for line in watch.stderr:
            if "the API server does not answer" in line:
                break
        api_cluster.start_apiserver()
        finish(place, workers, "rl")
        out, said = watch.communicate(timeout=120)
    assert (watch.returncode, out) == (0, "demo: Succeeded: every iteration is merged and evaluated\n"), said


def test_watch_in_a_terminal_draws_a_tree(place: Place, workers: StandInWorkers, tmp_path: Path) -> None:
    workers.seconds = 0.5
    place.controller()
    call(place, "apply", spec_file(place))
    script = ["script", "-qefc", " ".join(command_line("watch", "demo")), str(tmp_path / "typescript")]

    done = subprocess.run(
        script, env=environment(place) | {"TERM": "xterm-256color", "NO_COLOR": ""}, capture_output=True, check=False
    )

    picture = (tmp_path / "typescript").read_text()
    assert done.returncode == 0, picture
    assert "iteration 1" in picture
    assert "iteration 2/2" in picture
    assert "\u2514" in picture


def test_apply_asks_in_a_terminal_before_it_cancels_what_runs(
    place: Place, workers: StandInWorkers, tmp_path: Path
) -> None:
    workers.decide = waiting_at("rl/1/1")
    place.controller()
    call(place, "apply", spec_file(place, rlRuns=1))
    place.wait(lambda: "rl/1/1" in workers.stages.values(), "iteration 1 trains")
    before = {job["metadata"]["name"] for job in place.jobs()}
    changed = spec_file(place, rlRuns=1, seed=7)

    def answer(text: str) -> tuple[int, str]:
        script = ["script", "-qefc", " ".join(command_line("apply", changed)), str(tmp_path / "typescript")]
        done = subprocess.run(
            script, env=environment(place), input=text.encode(), capture_output=True, timeout=60, check=False
        )
        return done.returncode, (tmp_path / "typescript").read_text()

    code, said = answer("n\n")
    assert code == 1, said
    assert "spec.seed" in said
    assert "Cancelled: 1 running Job (rl/1/1)" in said
    assert "error: nothing was changed" in said
    assert place.get()["metadata"]["generation"] == 1

    code, said = answer("y\n")
    assert code == 0, said
    assert "demo configured" in said
    assert place.get()["metadata"]["generation"] == 2
    place.wait(lambda: not before <= {job["metadata"]["name"] for job in place.jobs()}, "the old one is cancelled")


def test_status_shows_conditions_stages_and_events(place: Place, workers: StandInWorkers) -> None:
    workers.decide = lambda told, number: End(42, message="no pad token") if told.stage_id == "rl/1/1" else End()
    place.controller()
    call(place, "apply", spec_file(place))
    place.wait_for("Stalled")

    said = call(place, "status", "demo", "--cluster", "--exit-code")

    assert said.code == 1
    assert "Stalled" in said.out
    assert "rl/1/1 stalled: attempt 1 cannot succeed: exit code 42: no pad token" in said.out
    events = said.out[said.out.index("AGE") :]
    assert "Warning  StageStalled" in events
    assert call(place, "status", "demo", "-n", place.namespace, "-o", "json").code == 0


def test_a_stage_that_another_run_works_on_is_running_here_too(place: Place, workers: StandInWorkers) -> None:
    workers.decide = waiting_at("rl/1/1")
    place.controller()
    for name in ("first", "second"):
        call(place, "apply", spec_file(place, name))

    def seen_by_controller(name: str) -> dict[str, str]:
        return {each["id"]: each["state"] for each in place.get(name).get("status", {}).get("stages", ())}

    place.wait(lambda: seen_by_controller("second").get("rl/1/1") == "Running", "the controller sees it in both")

    said = [json.loads(call(place, "status", name, "--cluster", "-o", "json").out) for name in ("first", "second")]

    stages = [next(each for each in document["stages"] if each["id"] == "rl/1/1") for document in said]
    assert [each["state"] for each in stages] == ["Running", "Running"]


def test_status_of_a_run_whose_store_cannot_be_read_is_the_controllers_word(
    place: Place, workers: StandInWorkers
) -> None:
    workers.decide = waiting_at("rl/2/1")
    place.controller()
    call(place, "apply", spec_file(place))
    # Imports, iteration 1 with its evaluation, the other member; and the report on the way: nobody else writes any more.
    place.wait(lambda: place.get().get("status", {}).get("stagesSucceeded") == 7, "all that can be done without it is")
    place.wait(lambda: "report/1" in workers.stages.values() and workers.num_live() == 1, "the report is made")
    elsewhere = place.folder / "elsewhere"
    (place.folder / "store").rename(elsewhere)
    (place.folder / "store").touch()

    said = call(place, "status", "demo", "--cluster")

    (place.folder / "store").unlink()
    elsewhere.rename(place.folder / "store")
    assert said.code == 0, said.err
    assert "the store cannot be read from here" in said.err
    lines = {line.split()[0]: line for line in said.out.splitlines() if line.startswith(("rl/", "merge/"))}
    assert "Succeeded" in lines["merge/1"]
    assert "Running" in lines["rl/2/1"]
    assert "Waiting" in lines["merge/2"]


def test_report_of_a_run_that_has_none_says_when_it_comes(place: Place, workers: StandInWorkers) -> None:
    workers.decide = waiting_at("import/sft")
    place.controller()
    call(place, "apply", spec_file(place))

    said = call(place, "report", "demo", "--cluster")

    assert said.code == 2
    assert "demo has no report yet" in said.err
    assert "hint: the first comes after iteration 1" in said.err


def test_kubectl_finds_the_plugin(api_cluster, place: Place) -> None:
    """kubectl warprun ... is our console script, and RUN is a run of the cluster there."""
    call(place, "apply", spec_file(place))
    search = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    done = subprocess.run(
        [str(binaries.KUBECTL.path()), "warprun", "status", "demo", "-n", place.namespace],
        env=environment(place) | search,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "no controller has looked at it yet" in done.stdout
