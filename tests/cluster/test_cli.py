"""The commands for a cluster, as a user types them, against a real API server and a controller."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.cluster.commands import call, spec_file
from tests.cluster.controllers import Place
from tests.cluster.harness.control_plane import ApiCluster
from tests.cluster.harness.kubeconfig import write_kubeconfig
from tests.cluster.stand_in_workers import End, StandInWorkers
from warpctl import names
from warpctl.kube.api import Api
from warpctl.kube.resources import WARPRUNS
from warpctl.spec.stage_input import StageInput

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


def test_apply_waits_until_the_run_has_succeeded_and_get_shows_it(place: Place, workers: StandInWorkers) -> None:
    place.controller()
    spec = spec_file(place)

    applied = call(place, "apply", spec, "--wait")

    assert (applied.code, applied.out) == (0, f"warprun.{names.GROUP}/demo created\n")
    assert "demo: Succeeded: every iteration is merged and evaluated" in applied.err
    shown = call(place, "get").out.splitlines()
    assert shown[0].split() == ["NAME", "STATUS", "ITER", "STAGES", "KL", "REWARD", "RETRIES", "GPU-H", "AGE"]
    assert shown[1].split()[:4] == ["demo", "Succeeded", "2/2", "11/11"]
    assert call(place, "get", "demo", "-o", "name").out == f"warprun.{names.GROUP}/demo\n"
    assert json.loads(call(place, "get", "demo", "-o", "json").out)["metadata"]["name"] == "demo"
    assert (
        call(place, "apply", spec).out == f"warprun.{names.GROUP}/demo created\n"
    )  # generation 1: nothing has changed


def test_what_is_applied_is_what_the_file_says_and_no_default(place: Place) -> None:
    call(place, "apply", spec_file(place))

    assert place.get()["spec"] == json.loads(json.dumps(place.spec()))


def test_kubectl_and_apply_are_of_one_mind_about_a_file(place: Place, api_cluster) -> None:
    """The same number in another spelling would be a conflict of field managers."""
    training = {"steps": [10], "batchSize": 8, "optimizer": {"learningRate": "1e-3"}}
    spec = spec_file(place, training=training)
    api_cluster.kubectl("apply", "-f", spec, "-n", place.namespace)

    said = call(place, "apply", spec)

    assert (said.code, said.err.splitlines()[:1]) == (0, [""])
    assert place.get()["spec"]["training"] == training


def test_a_dry_run_keeps_nothing_and_asks_the_server(place: Place) -> None:
    said = call(place, "apply", spec_file(place), "--dry-run=server")

    assert (said.code, place.api.list(WARPRUNS, place.namespace).items) == (0, [])
    assert "would be accepted" in said.out


def test_apply_exits_with_1_when_a_run_stalls(place: Place, workers: StandInWorkers) -> None:
    workers.decide = lambda told, number: End(42, message="no pad token")
    place.controller()

    said = call(place, "apply", spec_file(place), "--wait")

    assert said.code == 1
    assert "error: demo has stalled" in said.err
    assert "no pad token" in said.err
    assert "hint: mend it, then warpctl retry demo" in said.err


def test_apply_refuses_a_path_of_this_machine(place: Place) -> None:
    said = call(place, "apply", spec_file(place, storage={"uri": "./store"}))

    assert said.code == 2
    assert "spec.storage.uri is a path of this machine, got ./store" in said.err
    assert "hint: `warpctl run" in said.err


def test_suspend_resume_cancel_retry_and_delete(place: Place, workers: StandInWorkers) -> None:
    def decide(told: StageInput, number: int) -> End | None:
        """Imports are quick, the first attempts of iteration 1 go on until they are stopped."""
        return None if told.stage_id.startswith("rl/1/") and number <= 2 else End()

    workers.decide = decide
    place.controller()
    call(place, "apply", spec_file(place))
    place.wait(lambda: "rl/1/1" in workers.stages.values(), "a member trains")

    assert call(place, "suspend", "demo").out == "demo is being suspended\n"
    place.wait_for("Suspended")
    assert call(place, "resume", "demo").code == 0
    place.wait(lambda: place.condition("Suspended")["status"] == "False", "it goes on")
    generation = place.get()["metadata"]["generation"]
    assert call(place, "cancel", "demo", "--why", "lunch").code == 0
    assert "cancelled" in place.wait_for("Suspended")["message"]
    assert call(place, "resume", "demo").code == 0
    place.wait_for("Succeeded")
    assert place.get()["metadata"]["generation"] == generation

    said = call(place, "delete", "demo")
    assert said.out == f"demo deleted; artifacts stay in {place.store}\n"
    place.wait(lambda: place.api.get(WARPRUNS, place.namespace, "demo") is None, "it is gone")


def test_retry_pardons_what_failed_by_the_clock_of_the_server(place: Place, workers: StandInWorkers) -> None:
    workers.decide = lambda told, number: End(42) if number == 1 and told.stage_id == "rl/1/1" else End()
    place.controller()
    call(place, "apply", spec_file(place))
    place.wait_for("Stalled")

    # times of Jobs are whole seconds
    place.wait(
        lambda: call(place, "retry", "demo").code == 0 and place.condition("Stalled")["status"] == "False", "retried"
    )

    place.wait_for("Succeeded")
    assert place.jobs_by_stage()["rl/1/1"] == 2


def test_artifacts_are_not_deleted_without_a_yes(place: Place) -> None:
    call(place, "apply", spec_file(place, deletionPolicy="Delete"))

    said = call(place, "delete", "demo")

    assert said.code == 2
    assert "with its artifacts" in said.err
    assert place.get()["metadata"]["name"] == "demo"


def test_a_run_that_is_not_there_and_a_cluster_without_warpruns_are_told_apart(
    place: Place, api_cluster, tmp_path: Path
) -> None:
    said = call(place, "get", "nobody")
    assert (said.code, said.out) == (2, "")
    assert f"there is no WarpRun nobody in namespace {place.namespace}" in said.err

    if not api_cluster.owns_control_plane:
        pytest.skip("the other half needs a cluster without the definition")
    with ApiCluster(fake_nodes=0) as bare:
        elsewhere = Place(Api(bare.client()), bare.kubeconfig, "default", tmp_path)
        assert "does not know WarpRuns" in call(elsewhere, "get").err
        assert "hint: an administrator installs them" in call(elsewhere, "suspend", "demo").err


def test_who_may_not_is_told_what(place: Place, api_cluster) -> None:
    said = call(place, "get", kubeconfig=api_cluster.user_kubeconfig("mallory"))

    assert said.code == 1
    assert 'User "mallory" cannot list resource "warpruns"' in said.err
    assert "hint: ask the cluster's administrator" in said.err


def test_credentials_that_have_expired_are_told_from_those_that_may_not(place: Place, api_cluster) -> None:
    expired = write_kubeconfig(
        place.folder / "expired",
        server=api_cluster.server,
        authority=api_cluster.authority.pair.certificate,
        user="old",
    )

    said = call(place, "get", kubeconfig=expired)

    assert said.code == 1
    assert "error: cannot list warpruns: Unauthorized" in said.err
    assert "hint: your credentials are missing or expired: log in to the cluster again" in said.err


def test_get_prints_wide_rows_and_whole_objects(place: Place) -> None:
    call(place, "apply", spec_file(place))

    header, row = call(place, "get", "-o", "wide").out.splitlines()
    assert header.split()[-2:] == ["STORAGE", "MESSAGE"]
    assert place.store in row
    found = YAML(typ="safe").load(call(place, "get", "demo", "-o", "yaml").out)
    assert (found["kind"], found["spec"]["storage"]["uri"]) == ("WarpRun", place.store)


def test_no_cluster_at_all_is_said_in_a_line(place: Place, api_cluster, tmp_path: Path) -> None:
    missing = call(place, "get", kubeconfig=tmp_path / "absent")
    assert (missing.code, "no kubeconfig at" in missing.err) == (2, True)

    gone = tmp_path / "gone"
    gone.write_text(place.kubeconfig.read_text().replace(api_cluster.server, "https://127.0.0.1:1"))
    said = call(place, "get", kubeconfig=gone)
    assert said.code == 1
    assert "no answer from https://127.0.0.1:1" in said.err
