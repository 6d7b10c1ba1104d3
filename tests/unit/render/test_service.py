"""The headless Service by which the pods of one attempt find each other."""

from __future__ import annotations

from tests.builders.starts import starts
from tests.builders.world import a_run
from warpctl import names
from warpctl.render.service import render_service


def service_of(nodes):
    run = a_run(compute={"rl": {"nodes": nodes}})
    return render_service(run, starts(run)["rl/1/1"], job_name="rl-abc-a1", job_uid="job-uid")


def test_one_node_has_none():
    assert service_of(1) is None


def test_it_names_pods_before_they_are_ready_and_goes_with_its_job():
    service = service_of(2)
    assert service["metadata"]["name"] == names.service("rl-abc-a1")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": "rl-abc-a1"}
    (owner,) = service["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("Job", "rl-abc-a1", "job-uid", True)
    assert service["metadata"]["labels"]["warpctl.dev/run"] == "demo"
