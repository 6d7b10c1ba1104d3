"""What Prometheus sees of a controller that has driven a run."""

from __future__ import annotations

import re
import time
import urllib.request
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.controllers import ControllerProcess, Place
from tests.cluster.stand_in_workers import End, StandInWorkers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


def samples(controller: ControllerProcess) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """(name, labels) -> value, of /metrics."""
    port = re.search(r"started.*port=(\d+)", controller.said())
    assert port is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_attempt_is_counted_once_by_kind_and_result(place: Place, workers: StandInWorkers) -> None:
    workers.decide = lambda told, number: (
        End(43, message="no answer") if told.stage_id == "rl/1/1" and number == 1 else End()
    )
    controller = place.controller()
    place.create()
    place.wait_for("Succeeded")

    def counted() -> dict[tuple[str, str], float]:
        found = {
            (dict(labels)["kind"], dict(labels)["result"]): value
            for (name, labels), value in samples(controller).items()
            if name == "warpctl_stage_duration_seconds_count"
        }
        # The report of iteration 1 may be overtaken by the final one, and is stopped then.
        assert found.pop(("report", "Stopped"), 0) <= 1
        return found

    def expected() -> dict[tuple[str, str], float]:
        kinds = Counter(stage.split("/")[0] for stage in place.jobs_by_stage())
        return {(kind, "Succeeded"): count for kind, count in kinds.items()} | {("rl", "Failed"): 1}

    place.wait(lambda: counted() == expected(), "every Job is seen to end")
    time.sleep(1)
    assert counted() == expected()
    port = re.search(r" port=(\d+)", controller.said())
    assert port is not None
    for probe in ("healthz", "readyz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/{probe}", timeout=10) as answer:
            assert answer.read() == b"ok\n"
    labels = frozenset({("namespace", place.namespace), ("name", "demo"), ("reason", "Succeeded")})
    place.wait(lambda: samples(controller).get(("warpctl_run_info", labels)) == 1, "the run's own series")
