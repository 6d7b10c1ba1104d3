"""The headless Service by which the pods of one attempt find each other."""

from __future__ import annotations

from warpctl import names
from warpctl.render.service import render_service


def test_it_names_pods_before_they_are_ready_and_goes_with_its_job():
    service = render_service("ml", job_name="rl-abc-a1", job_uid="job-uid", labels={names.RUN: "demo"})
    assert service["metadata"]["name"] == names.service("rl-abc-a1")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": "rl-abc-a1"}
    (owner,) = service["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("Job", "rl-abc-a1", "job-uid", True)
    assert service["metadata"]["labels"]["warpctl.dev/run"] == "demo"
