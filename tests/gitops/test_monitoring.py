"""manifests/monitoring asks Prometheus for metrics that the controller has, in queries that Prometheus can read."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cluster.harness.binaries import KUBECTL
from tests.gitops.health_engines import promql_metrics
from warpctl.controller.metrics import Metrics
from warpctl.spec.reasons import Reason

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]  # the first ones build programs
TOP = Path(__file__).parents[2]
MONITORING = TOP / "manifests" / "monitoring"
OVERLAYS = sorted((TOP / "manifests" / "overlays").iterdir())
MOVING = {Reason.PROGRESSING, Reason.WAITING, Reason.SUCCEEDED, Reason.SUSPENDED, Reason.STORE_UNAVAILABLE}
"""Reasons of runs that are not stalled."""


def rules() -> list[dict[str, Any]]:
    groups = YAML(typ="safe").load((MONITORING / "rules.yaml").read_text())["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return found


EXPRESSIONS = {rule["alert"]: rule["expr"] for rule in rules()} | {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in panels() for target in panel["targets"]
}


def exported() -> set[str]:
    """Every series that /metrics can have, by name."""
    names = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_every_query_can_be_read_and_asks_for_metrics_of_the_controller(title: str) -> None:
    asked = promql_metrics(EXPRESSIONS[title])

    assert asked
    assert asked <= exported()


def test_every_metric_of_runs_and_work_is_on_the_dashboard() -> None:
    asked = {name for panel in panels() for each in panel["targets"] for name in promql_metrics(each["expr"])}
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}

    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported()} == shown


def test_a_run_is_called_stalled_for_every_reason_that_stalls_it() -> None:
    stalling = {str(reason) for reason in set(Reason) - MOVING}
    found = [re.findall(r'reason=~"([^"]+)"', each) for each in EXPRESSIONS.values() if "reason=~" in each]

    assert len(found) == 2
    assert all(set(reasons.split("|")) == stalling for (reasons,) in found)


def test_panels_have_ids_of_their_own_and_lie_beside_each_other() -> None:
    ids = [panel["id"] for panel in panels()]
    cells = [
        (x, y)
        for panel in panels()
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(set(ids)) == len(ids)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("has_monitoring", [False, True])
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_every_overlay_is_built_with_and_without_monitoring(
    overlay: Path, has_monitoring: bool, tmp_path: Path
) -> None:
    def below(path: Path) -> str:
        return str(Path(*[".."] * len(tmp_path.resolve().parts[1:]), *path.resolve().parts[1:]))

    kustomization: dict[str, Any] = {"resources": [below(overlay)]}
    if has_monitoring:
        kustomization["components"] = [below(MONITORING)]
    (tmp_path / "kustomization.yaml").write_text(json.dumps(kustomization))

    command = [str(KUBECTL.path()), "kustomize", str(tmp_path)]
    built = list(
        YAML(typ="safe").load_all(
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        )
    )

    by_kind = {each["kind"]: each for each in built}
    added = {"PodMonitor", "PrometheusRule"}
    assert added & set(by_kind) == (added if has_monitoring else set())
    deployment = by_kind["Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("ghcr.io/warpctl/slim:")
    if has_monitoring:
        monitor = by_kind["PodMonitor"]
        wanted = monitor["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
        assert {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]} <= {
            each["name"] for each in container["ports"]
        }
        dashboards = [each for each in built if each["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
        assert [json.loads(each["data"]["warpctl.json"])["title"] for each in dashboards] == ["warpctl"]
