"""docs/gitops.md and docs/operations.md say what is so: their YAML is built and read, their tables are complete."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cluster.harness.binaries import KUBECTL
from tests.gitops.test_health_checks import EXPECTED
from tests.gitops.test_monitoring import exported, rules
from warpctl import errors
from warpctl.executors.job_facts import KILLED, TERMINATED
from warpctl.spec.controller_config import ControllerConfig
from warpctl.spec.reasons import EventReason, Reason

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]  # kubectl may have to be built
TOP = Path(__file__).parents[2]
GITOPS = (TOP / "docs" / "gitops.md").read_text()
OPERATIONS = (TOP / "docs" / "operations.md").read_text()
BLOCK = re.compile(r"^```yaml\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> dict[str, str]:
    """Path in the comment of the first line -> the file."""
    found = dict(BLOCK.findall(text))
    assert len(found) == text.count("```yaml"), "a block that does not begin with its path"
    return found


def section(heading: str) -> str:
    """One section of docs/operations.md."""
    return OPERATIONS.split(f"# {heading}\n", 1)[1].split("\n#", 1)[0]


def rows(text: str) -> dict[str, list[str]]:
    """First cell of each row of the tables in `text` -> the other cells."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {row[0].strip("`"): row[1:] for row in cells if not row[0].startswith("-")}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A Git repository laid out as the documents say."""
    for path, text in (blocks(GITOPS) | blocks(OPERATIONS)).items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for place in (tmp_path, tmp_path / "warpctl"):
        shutil.copytree(TOP / "manifests", place / "manifests")
    shutil.copy(TOP / "manifests" / "gitops" / "flux-accepted.yaml", tmp_path / "clusters" / "production")
    shutil.copy(TOP / "specs" / "gemma2-2b-node.yaml", tmp_path / "runs" / "gemma2-2b.yaml")
    return tmp_path


def build(folder: Path) -> list[dict[str, Any]]:
    command = [str(KUBECTL.path()), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(YAML(typ="safe").load_all(done.stdout))


def test_the_controller_is_installed_from_git_as_the_document_says(repository: Path) -> None:
    built = build(repository / "infrastructure" / "warpctl")
    (deployment,) = [each for each in built if each["kind"] == "Deployment"]
    (config,) = [each for each in built if each["metadata"]["name"].startswith("warpctl-controller-config")]

    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("registry.example.com/warpctl/slim@sha256:1")
    mounted = [each.get("configMap", {}).get("name") for each in deployment["spec"]["template"]["spec"]["volumes"]]
    assert config["metadata"]["name"] in mounted
    read = ControllerConfig.model_validate(YAML(typ="safe").load(config["data"]["config.yaml"]))
    assert read.tenancy_of("ml").storage == ("gs://ml-warp/",)


def test_runs_from_git_are_warp_runs_in_their_namespace(repository: Path) -> None:
    (run,) = build(repository / "runs")

    assert (run["kind"], run["metadata"]["namespace"]) == ("WarpRun", "ml")


def test_flux_gets_its_health_check_by_the_patch(repository: Path) -> None:
    built = {each["metadata"]["name"]: each["spec"] for each in build(repository / "clusters" / "production")}

    assert [each["kind"] for each in built["runs"]["healthCheckExprs"]] == ["WarpRun"]
    assert (built["runs"]["dependsOn"], built["runs"]["wait"]) == ([{"name": "warpctl"}], True)
    for spec in built.values():
        assert (repository / spec["path"] / "kustomization.yaml").exists()


def test_argo_cds_applications_name_folders_that_are_there(repository: Path) -> None:
    applications = list(YAML(typ="safe").load_all(blocks(GITOPS)["clusters/production/argocd.yaml"]))

    assert [each["metadata"]["name"] for each in applications] == ["warpctl", "runs"]
    for each in applications:
        assert (repository / each["spec"]["source"]["path"] / "kustomization.yaml").exists()


def test_on_openshift_the_platform_assigns_the_controllers_user_too(repository: Path) -> None:
    (deployment,) = [each for each in build(repository / "openshift") if each["kind"] == "Deployment"]

    context = deployment["spec"]["template"]["spec"]["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_the_tables_of_health_say_what_the_engines_say() -> None:
    """The kinds that a row of docs/gitops.md speaks of, and what EXPECTED says of them."""
    flux = rows(GITOPS.split("## Flux\n", 1)[1].split("\n## ", 1)[0])
    argo = rows(GITOPS.split("## Argo CD\n", 1)[1].split("\n## ", 1)[0])
    kinds_by_row = {
        "Progressing, Waiting, StoreUnavailable": ("running", "retrying", "waiting", "store-unavailable"),
        "suspended": ("suspended", "cancelled"),
        "Stalled, other stages go on": ("partly-stalled",),
        "Stalled": ("stage-stalled", "not-allowed"),
        "Succeeded": ("succeeded",),
    }
    for row, kinds in kinds_by_row.items():
        assert {tuple(EXPECTED[kind][1:]) for kind in kinds} == {tuple(flux[row])}
    by_argo = {
        "Progressing": ("new", "edited", "deleting", "running", "retrying", "waiting", "store-unavailable"),
        "Suspended": ("suspended", "cancelled"),
        "Degraded": ("stage-stalled", "partly-stalled", "not-allowed"),
        "Healthy": ("succeeded",),
    }
    assert {cells[0] for cells in argo.values()} - {"Argo CD says"} == set(by_argo)
    for word, kinds in by_argo.items():
        assert {EXPECTED[kind][0] for kind in kinds} == {word}


def test_every_reason_of_a_condition_has_its_row() -> None:
    assert set(rows(section("Conditions"))) - {"Reason"} == {str(reason) for reason in Reason}


def test_every_reason_of_an_event_has_its_row() -> None:
    assert set(rows(section("Events"))) - {"Reason"} == {str(reason) for reason in EventReason}


def test_every_exit_code_is_in_the_document() -> None:
    text = section("Exit codes of a worker")
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")} | {KILLED, TERMINATED}
    of_workers = {
        errors.EXIT_DONE,
        errors.EXIT_FINAL,
        errors.EXIT_RETRYABLE,
        errors.EXIT_INTERRUPTED,
        KILLED,
        TERMINATED,
    }

    assert {int(code) for code in re.findall(r"\b\d+\b", text)} >= codes
    table = " ".join(rows(text))
    assert {int(code) for code in re.findall(r"\b\d+\b", table)} == of_workers


def test_every_metric_and_every_alert_has_its_row() -> None:
    found = rows(section("Metrics"))
    series = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported()}

    assert {name for name in found if name.startswith("warpctl_")} == series
    assert {name for name in found if name.startswith("Warpctl")} == {rule["alert"] for rule in rules()}
