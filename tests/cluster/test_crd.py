"""The CRD and the Jobs, as a real API server sees them: what it takes, what it refuses, and in which words."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.builders.bad_specs import GOOD, ROWS, spoil
from tests.builders.starts import UID, starts
from tests.builders.world import a_run
from tests.cluster.crd import install_crd
from warpctl.kube.api import Api
from warpctl.kube.errors import ClusterError
from warpctl.kube.resources import JOBS, PODS, SERVICES, WARPRUNS
from warpctl.render.job import render_job
from warpctl.render.service import render_service
from warpctl.spec.cluster_status import ClusterStatus
from warpctl.spec.controller_config import ControllerConfig
from warpctl.spec.parse import parse_file

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
TOP = Path(__file__).parents[2]
SPECS = sorted((TOP / "specs").glob("*.yaml"))
REFUSED = [row for row in ROWS if row["by"] != "Nobody"]
WORDS = {"apiVersion": "version", "kind": "kind", "metadata.labels.team": "labels", "sepc": '"sepc"'}
"""What the server calls a field that it reads before it knows the schema."""


@pytest.fixture(scope="module")
def api(api_cluster) -> Api:
    """With the CRD installed."""
    install_crd(api_cluster)
    return Api(api_cluster.client())


def create(api: Api, namespace: str, body: dict[str, Any], *, is_dry_run: bool = True) -> dict[str, Any]:
    """POST with the validation that kubectl asks for."""
    body = copy.deepcopy(body)
    body["metadata"]["namespace"] = namespace
    query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if is_dry_run else {})
    return api.request("POST", WARPRUNS.path(namespace), query=query, body=body, what="create the WarpRun")


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_server_takes_every_example_and_changes_nothing_of_it(api, namespace, path) -> None:
    body = YAML(typ="safe").load(path.read_text())
    assert create(api, namespace, body)["spec"] == body["spec"], "defaults would be drift to a GitOps tool"


def test_the_good_spec_of_the_table_is_taken(api, namespace) -> None:
    assert create(api, namespace, GOOD)["spec"] == GOOD["spec"]


@pytest.mark.parametrize("row", REFUSED, ids=[row["name"].replace(" ", "-") for row in REFUSED])
def test_the_server_refuses_what_the_command_line_refuses_and_names_the_field(api, namespace, row) -> None:
    with pytest.raises(ClusterError) as caught:
        create(api, namespace, spoil(row))
    assert caught.value.code in {400, 422}
    field = row.get("server", row["path"])
    assert WORDS.get(field, field) in caught.value.message
    if row["by"] == "Rule":
        words = re.sub(r" \(\d+\)$", "", row["message"]).removeprefix("is not a field of")
        assert words.strip() in caught.value.message


@pytest.mark.parametrize("row", [row for row in ROWS if row["by"] == "Nobody"], ids=lambda row: row["name"])
def test_null_is_as_good_as_absent_to_the_server(api, namespace, row) -> None:
    (path,) = row["set"]
    *parents, last = path.split(".")
    taken = create(api, namespace, spoil(row))
    for part in parents:
        taken = taken[part]
    assert last not in taken


# updatePolicy Reject


@pytest.fixture
def started(api, namespace) -> Iterator[dict[str, Any]]:
    """A run with updatePolicy Reject that the controller has accepted."""
    body = copy.deepcopy(GOOD)
    body["spec"]["updatePolicy"] = "Reject"
    create(api, namespace, body, is_dry_run=False)
    status = ClusterStatus(accepted_spec_digest="abc", observed_generation=1)
    patch = {"status": status.model_dump(mode="json", by_alias=True, exclude_none=True)}
    yield api.patch(WARPRUNS, namespace, "good", patch, subresource="status")
    api.delete(WARPRUNS, namespace, "good")


def edit(api: Api, live: dict[str, Any], **row: Any) -> dict[str, Any]:
    """Put the run with some fields set and others removed; a dry run."""
    body = copy.deepcopy(live)
    body["spec"] = spoil(
        {"set": {"spec.updatePolicy": "Reject", **row.get("to", {})}, "remove": row.get("without", [])}
    )["spec"]
    metadata = live["metadata"]
    path = WARPRUNS.path(metadata["namespace"], metadata["name"])
    return api.request("PUT", path, query={"dryRun": "All"}, body=body, what="change the WarpRun")


@pytest.mark.parametrize(
    ("to", "field"),
    [
        ({"spec.training.klCoefficient": "0.2"}, "spec.training.klCoefficient"),
        ({"spec.training.steps": [400]}, "spec.training.steps"),
        ({"spec.training.maxKl": "Unlimited"}, "spec.training.maxKl"),
        ({"spec.training.sampling": {"topP": "0.9"}}, "spec.training.sampling.topP"),
        ({"spec.merge.order": "Symmetric"}, "spec.merge.order"),
        ({"spec.seed": 1}, "spec.seed"),
        ({"spec.models.sft.uri": "gs://other"}, "spec.models.sft.uri"),
        ({"spec.models.rewards[1].weight": "0.6"}, "spec.models.rewards"),
        ({"spec.models.heldOutRewards": []}, "spec.models.heldOutRewards"),
        ({"spec.prompts.evaluationSplit": {"type": "Source", "uri": "gs://b/e"}}, "spec.prompts.evaluationSplit.type"),
        ({"spec.prompts.evaluationSplit.count": 300}, "spec.prompts.evaluationSplit.count"),
        ({"spec.evaluation.seed": 7}, "spec.evaluation.seed"),
    ],
)
def test_an_outcome_field_cannot_change_after_the_start(api, started, to, field) -> None:
    with pytest.raises(ClusterError) as caught:
        edit(api, started, to=to)
    assert f"{field}: " in caught.value.message
    assert "set updatePolicy to Restage in the same edit" in caught.value.message


@pytest.mark.parametrize(
    "change",
    [
        {"to": {"spec.training.klCoefficient": "0.10", "spec.merge.litiRate": "3e-1"}},
        {"to": {"spec.merge.order": "Paper", "spec.training.maxKl": "200", "spec.seed": 0, "spec.training.optimizer.beta1": ".9"}},
        {"without": ["spec.merge", "spec.training.emaRate", "spec.prompts.evaluationSplit"]},
        {"to": {"spec.iterations": 7, "spec.evaluation.litiRates": ["0.5"], "spec.suspend": True}},
        {"to": {"spec.models.rewards[1].timeoutSeconds": 31, "spec.models.rewards[1].url": "https://moved.example/x"}},
        {"to": {"spec.training.microBatchSize": 8, "spec.compute.rl.gpus": 4}},
        {"to": {"spec.training.klCoefficient": "0.2", "spec.updatePolicy": "Restage"}},
    ],
)  # fmt: skip
def test_what_changes_no_outcome_or_gives_the_policy_up_may_change(api, started, change) -> None:
    assert edit(api, started, **change)["spec"]


def test_before_the_start_everything_may_change(api, namespace) -> None:
    body = copy.deepcopy(GOOD)
    body["spec"]["updatePolicy"] = "Reject"
    live = create(api, namespace, body, is_dry_run=False)
    assert edit(api, live, to={"spec.training.klCoefficient": "0.2"})["spec"]["training"]["klCoefficient"] == "0.2"


def largest() -> dict[str, Any]:
    """As many of everything as the schema allows, texts long."""

    def rewards(letter: str) -> list[dict[str, Any]]:
        return [
            {
                "type": "Checkpoint",
                "name": f"{letter}{i}{'x' * 37}",
                "uri": f"gs://{'y' * 1000}",
                "weight": f"{'0' * 29}{i}.5",
            }
            for i in range(8)
        ]

    template = {
        "env": [{"name": f"V{i}{'V' * 200}", "value": "v" * 64} for i in range(64)],
        "volumes": [{"name": f"v{i}", "type": "emptyDir", "mountPath": f"/{'m' * 200}{i}"} for i in range(16)],
        "tolerations": [{"key": "k" * 256, "operator": "Exists"}] * 16,
        "nodeSelector": {f"k{i}": "v" * 256 for i in range(32)},
    }
    return spoil(
        {
            "set": {
                "spec.updatePolicy": "Reject",
                "spec.models.rewards": rewards("a"),
                "spec.models.heldOutRewards": rewards("b"),
                "spec.training.steps": [400] * 100,
                "spec.evaluation.litiRates": [f"0.{i:030d}" for i in range(1, 33)],
                "spec.controls": ["NoAnchor", "SftAnchor", "ComputeMatched"],
                **{
                    f"spec.compute.{kind}.podTemplate": template
                    for kind in ("import", "rl", "merge", "evaluate", "report")
                },
            }
        }
    )


def test_the_largest_spec_is_within_what_rules_may_cost(api, namespace) -> None:
    live = create(api, namespace, largest(), is_dry_run=False)
    live = api.patch(WARPRUNS, namespace, "good", {"status": {"acceptedSpecDigest": "abc"}}, subresource="status")
    body = copy.deepcopy(live)
    body["spec"]["suspend"] = True
    path = WARPRUNS.path(namespace, "good")
    assert api.request("PUT", path, body=body, what="change the WarpRun")["spec"]["suspend"] is True


# What people see


def test_kubectl_shows_the_columns(api, api_cluster, namespace) -> None:
    create(api, namespace, GOOD, is_dry_run=False)
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "Progressing",
        "message": "7 stages are published",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {
        "conditions": [condition],
        "iterationText": "2/5",
        "stagesText": "7/15",
        "retries": 1,
        "gpuHours": "21.40",
    }
    status["best"] = {"point": "iteration 2, 0.3", "kl": "14.2", "reward": "1.83±0.04"}
    api.patch(WARPRUNS, namespace, "good", {"status": status}, subresource="status")
    header, row = api_cluster.kubectl("get", "wr", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "STATUS", "ITER", "STAGES", "KL", "REWARD", "RETRIES", "AGE"]
    assert row.split()[:7] == ["good", "Progressing", "2/5", "7/15", "14.2", "1.83±0.04", "1"]
    wide = api_cluster.kubectl("get", "warp", "-n", namespace, "-o", "wide")
    for word in ("QUEUE", "STORAGE", "gs://bucket/warp", "GPU-H", "21.40", "7 stages are published"):
        assert word in wide


def test_an_unknown_field_of_status_is_dropped_so_that_an_older_controller_cannot_break_a_newer_one(
    api, namespace
) -> None:
    create(api, namespace, GOOD, is_dry_run=False)
    answer = api.patch(WARPRUNS, namespace, "good", {"status": {"iteration": 1, "future": "x"}}, subresource="status")
    assert answer["status"] == {"iteration": 1}


# Jobs


def jobs_of(run, **config: Any):
    """One Job of each stage kind and control, with its Service."""
    settings = ControllerConfig.model_validate(config)
    shown = {}
    for start in starts(run).values():
        shown.setdefault((start.stage.kind, start.stage.control), start)
    for start in shown.values():
        job = render_job(run, start, storage="gs://bucket/warp", uid=UID, config=settings)
        metadata, service = job["metadata"], None
        if job["spec"]["completions"] > 1:
            service = render_service(
                run.metadata.namespace, job_name=metadata["name"], job_uid=UID, labels=metadata["labels"]
            )
        yield job, service


FULL = a_run(
    compute={
        "rl": {
            "nodes": 2,
            "gpus": 8,
            "scratch": "10Gi",
            "podTemplate": {
                "nodeSelector": {"gpu": "h100"},
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}, {"operator": "Exists"}],
                "env": [
                    {"name": "A", "value": "$(HOME)"},
                    {"name": "B", "secretKeyRef": {"name": "s", "key": "k"}},
                ],
                "envFromSecrets": ["extra"],
                "imagePullSecrets": ["registry"],
                "annotations": {"note": "x"},
                "volumes": [
                    {"name": "a", "type": "persistentVolumeClaim", "sourceName": "data", "mountPath": "/a"},
                    {"name": "b", "type": "configMap", "sourceName": "code", "mountPath": "/b", "readOnly": True},
                    {"name": "c", "type": "secret", "sourceName": "key", "mountPath": "/c"},
                    {"name": "scratch", "type": "emptyDir", "mountPath": "/d", "sizeLimit": "1Gi"},
                ],
                "affinity": {
                    "node": {
                        "required": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}],
                        "preferred": [
                            {"weight": 3, "matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["8"]}]}
                        ],
                    },
                    "pod": {"required": [{"matchLabels": {"a": "b"}, "topologyKey": "rack"}]},
                    "podAnti": {"preferred": [{"weight": 5, "matchLabels": {"a": "b"}, "topologyKey": "host"}]},
                },
            },
        }
    }
)
RUNS = {**{path.stem: parse_file(path) for path in SPECS}, "everything": FULL}


@pytest.mark.parametrize("name", RUNS)
def test_the_server_takes_every_job_and_service_and_its_pods_are_restricted(api, namespace, name) -> None:
    made = list(jobs_of(RUNS[name], defaults={"envFromSecrets": ["store"], "hubTokenSecret": "hub"}))
    assert len(made) >= 5
    assert any(service for _, service in made) == (name == "everything")
    for job, service in made:
        job["metadata"]["namespace"] = namespace
        strict = {"dryRun": "All", "fieldValidation": "Strict"}
        answer = api.request("POST", JOBS.path(namespace), query=strict, body=job, what="create the Job")
        assert answer["spec"]["podReplacementPolicy"] == "Failed"
        # Enforcement looks at pods, not at the templates of Jobs.
        template = job["spec"]["template"]
        metadata = {**template["metadata"], "name": "pod"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        api.request("POST", PODS.path(namespace), query=strict, body=pod, what="create its pod")
        if service is not None:
            service["metadata"]["namespace"] = namespace
            api.request("POST", SERVICES.path(namespace), query=strict, body=service, what="create its Service")


def test_the_namespace_of_these_tests_does_refuse_a_pod_that_is_not_restricted(api, namespace) -> None:
    (job, _), *_ = jobs_of(RUNS["tiny-cpu"])
    spec = copy.deepcopy(job["spec"]["template"]["spec"])
    spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        api.request("POST", PODS.path(namespace), query={"dryRun": "All"}, body=pod, what="create the pod")
