"""The Roles of manifests/ grant what the controller does, and nothing beyond it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cluster.controllers import Place
from tests.cluster.harness.control_plane import ApiCluster
from tests.cluster.harness.state import TOP
from tests.cluster.stand_in_workers import End, StandInWorkers
from warpctl.kube.resources import JOBS, SERVICES, WARPRUNS
from warpctl.spec.stage_input import StageInput

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

OVERLAYS = TOP / "manifests" / "overlays"
ACCOUNT = "warpctl-controller"
Permission = tuple[str, str, str]
"""(group, resource or resource/subresource, verb)"""


def permissions(*files: Path) -> set[Permission]:
    """Everything that the Roles in these files grant."""
    rules = [rule for file in files for each in YAML(typ="safe").load_all(file) for rule in each.get("rules", ())]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


GRANTED = permissions(OVERLAYS / "namespaced" / "role.yaml", TOP / "manifests" / "base" / "leader-role.yaml")


@dataclass
class Identity:
    """The controller's service account in a test's namespace, with the Roles of the overlay or with some of them."""

    cluster: ApiCluster
    namespace: str
    folder: Path
    _begin: int = field(init=False)

    def __post_init__(self) -> None:
        self._begin = self._audit.stat().st_size
        self.folder.mkdir()
        kustomization = {
            "namespace": self.namespace,
            "resources": [os.path.relpath(OVERLAYS / "namespaced", self.folder.resolve())],
        }
        (self.folder / "kustomization.yaml").write_text(json.dumps(kustomization))

    def grant(self, without: Permission | None = None) -> Path:
        """Create account and Roles, less one permission; returns the account's kubeconfig."""
        built = YAML(typ="safe").load_all(self.cluster.kubectl("kustomize", str(self.folder)))
        wanted = [each for each in built if each["kind"] in ("ServiceAccount", "Role", "RoleBinding")]
        for each in wanted:
            if each["kind"] == "Role":
                each["rules"] = [rule for rule in (_less(rule, without) for rule in each["rules"]) if rule["verbs"]]
        body = {"apiVersion": "v1", "kind": "List", "items": wanted}
        self.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))
        return self.cluster.service_account_kubeconfig(self.namespace, ACCOUNT)

    def used(self, *, refused: bool) -> set[Permission]:
        """What the account has asked for, and was refused or not."""
        with self._audit.open() as file:
            file.seek(self._begin)
            events = [json.loads(line) for line in file if line.endswith("}\n") and self._user in line]
        found = set()
        for event in events:
            reference = event.get("objectRef")
            if reference is None or (event["responseStatus"].get("code") == 403) != refused:
                continue
            resource = "/".join(filter(None, (reference["resource"], reference.get("subresource", ""))))
            found.add((reference.get("apiGroup", ""), resource, event["verb"]))
        return found

    @property
    def _audit(self) -> Path:
        return self.cluster.state / "audit.log"

    @property
    def _user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{ACCOUNT}"


def _less(rule: dict[str, Any], without: Permission | None) -> dict[str, Any]:
    if without is None or (rule["apiGroups"], rule["resources"]) != ([without[0]], [without[1]]):
        return rule
    return rule | {"verbs": [verb for verb in rule["verbs"] if verb != without[2]]}


@pytest.fixture
def identity(api_cluster: ApiCluster, namespace: str, tmp_path: Path) -> Identity:
    if not api_cluster.owns_control_plane:
        pytest.skip("the cluster of WARPCTL_TEST_KUBECONFIG does not show its audit log")
    return Identity(api_cluster, namespace, tmp_path / "roles")


def a_life(
    place: Place,
    workers: StandInWorkers,
    kubeconfig: Path,
    is_refused: Callable[[], bool] = lambda: False,
    *,
    has_quota: bool = True,
) -> None:
    """A run that meets everything: a quota, two nodes, a suspension, success, and deletion with its artifacts.

    Ends early once `is_refused`. A quota takes 10 s to be asked about.
    """

    def wait(is_true: Callable[[], object], what: str) -> bool:
        place.wait(lambda: is_refused() or is_true(), what)
        return not is_refused()

    first: list[str] = []

    def decide(told: StageInput, number: int) -> End | None:
        """The member's first attempt stays, on both of its nodes."""
        if told.stage_id != "rl/1/1":
            return End()
        first.append(told.attempt_id)
        return None if told.attempt_id == first[0] else End()

    workers.decide = decide
    compute = place.spec()["compute"]
    quota = Quota(place)
    if has_quota:
        quota.create()
    place.controller(kubeconfig=kubeconfig)
    place.create(
        compute={**compute, "rl": {**compute["rl"], "nodes": 2}}, deletionPolicy="Delete", iterations=1, rlRuns=1
    )
    if has_quota:
        if not wait(lambda: "quota" in place.condition("Ready").get("message", ""), "the quota is named"):
            return
        quota.delete()
    if not wait(lambda: "rl/1/1" in workers.stages.values(), "the member trains"):
        return
    rl = next(each["metadata"]["name"] for each in place.jobs() if each["metadata"]["name"].startswith("rl-"))
    if not wait(lambda: place.api.get(SERVICES, place.namespace, rl), "its Service"):
        return
    place.patch({"spec": {"suspend": True}})
    if not wait(lambda: place.condition("Suspended").get("status") == "True" and not _is_there(place, rl), "suspended"):
        return
    place.patch({"spec": {"suspend": False}})
    if not wait(lambda: place.condition("Succeeded").get("status") == "True", "Succeeded"):
        return
    if not wait(lambda: all("ttlSecondsAfterFinished" in each["spec"] for each in place.jobs()), "Jobs expire"):
        return
    place.api.delete(WARPRUNS, place.namespace, "demo")
    wait(lambda: place.api.get(WARPRUNS, place.namespace, "demo") is None, "it is gone")


@dataclass(frozen=True)
class Quota:
    """No pods in this namespace."""

    place: Place

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.place.namespace}/resourcequotas"

    def create(self) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none"},
            "spec": {"hard": {"pods": "0"}},
        }
        self.place.api.request("POST", self.path, body=body, what="create a quota")

    def delete(self) -> None:
        self.place.api.request("DELETE", f"{self.path}/none", what="delete the quota")
        for job in self.place.jobs():  # the Job controller's next try is a while away
            self.place.api.delete(JOBS, self.place.namespace, job["metadata"]["name"])


def _is_there(place: Place, job: str) -> bool:
    return any(each["metadata"]["name"] == job for each in place.jobs())


def test_one_namespace_and_all_of_them_need_the_same() -> None:
    assert permissions(OVERLAYS / "cluster" / "role.yaml") == permissions(OVERLAYS / "namespaced" / "role.yaml")


def test_a_whole_life_uses_every_permission_and_none_beyond(
    place: Place, workers: StandInWorkers, identity: Identity
) -> None:
    a_life(place, workers, identity.grant())
    assert place.controllers[0].stop() == 0

    # A watch is written down at its end.
    place.wait(lambda: identity.used(refused=False) >= GRANTED, "every permission is used")
    assert identity.used(refused=False) == GRANTED
    assert identity.used(refused=True) == set()


@pytest.mark.parametrize("missing", sorted(GRANTED), ids="-".join)
def test_without_it_the_controller_is_refused(
    missing: Permission, place: Place, workers: StandInWorkers, identity: Identity
) -> None:
    kubeconfig = identity.grant(without=missing)

    has_quota = missing == ("", "events", "list")
    a_life(place, workers, kubeconfig, lambda: missing in identity.used(refused=True), has_quota=has_quota)

    assert identity.used(refused=True) == {missing}
