"""Clusters for the tests: one of each tier a test process, started when the first test asks for it.

Markers: `cluster` for a test on the API tier, `node` for one that needs real pods. Two xdist processes start two clusters,
which do not see each other; so a test may stop the apiserver of its own at will.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import kubernetes
import pytest

from tests.cluster.controllers import Place
from tests.cluster.crd import install_crd
from tests.cluster.harness import prerequisites
from tests.cluster.harness.control_plane import ApiCluster
from tests.cluster.harness.given import GivenCluster
from tests.cluster.harness.kwok import kwok_node
from tests.cluster.harness.namespaces import create_namespace, delete_namespace
from tests.cluster.harness.node import NodeCluster
from tests.cluster.stand_in_workers import StandInWorkers
from tests.cluster.status_history import StatusHistory
from warpctl.kube.api import Api
from warpctl.kube.resources import DEFINITIONS

GIVEN = "WARPCTL_TEST_KUBECONFIG"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test: minutes from nothing, which no test's timeout should have to cover."""
    wanted = {name for item in session.items for name in ("cluster", "node") if item.get_closest_marker(name)}
    if session.config.option.collectonly:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    # What cannot be built fails again, and is told then, in the fixture of the tests that need it.
    with capture.global_and_fixture_disabled(), contextlib.suppress(RuntimeError):
        if "cluster" in wanted and GIVEN not in os.environ:
            ApiCluster().build()
        if "node" in wanted:
            NodeCluster().build()


@pytest.fixture(scope="session")
def api_cluster() -> Iterator[ApiCluster | GivenCluster]:
    """A control plane with KWOK's nodes, or the cluster of WARPCTL_TEST_KUBECONFIG."""
    if given := os.environ.get(GIVEN):
        with GivenCluster(Path(given)) as cluster:
            yield cluster
    else:
        with ApiCluster() as cluster:
            yield cluster


@pytest.fixture(scope="session")
def node_cluster() -> Iterator[NodeCluster]:
    """A cluster whose pods run, with a registry and an object store; only where this machine can have one."""
    if reason := prerequisites.missing():
        pytest.skip(f"NO NODE TIER HERE: {reason}")
    with NodeCluster() as cluster:
        yield cluster


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own under the restricted Pod Security level, in the cluster of the test's tier."""
    tier = "node_cluster" if request.node.get_closest_marker("node") else "api_cluster"
    core = kubernetes.client.CoreV1Api(request.getfixturevalue(tier).client())
    name = f"test-{uuid.uuid4().hex[:8]}"
    create_namespace(core, name)
    yield name
    delete_namespace(core, name)


@pytest.fixture(scope="session")
def installed(api_cluster: ApiCluster | GivenCluster) -> None:
    """The CRD, where it is not there. No test takes it away: that would wait for every run a killed controller left."""
    if Api(api_cluster.client()).get(DEFINITIONS, "", "warpruns.warpctl.dev") is None:
        install_crd(api_cluster)


@pytest.fixture
def place(api_cluster: ApiCluster | GivenCluster, installed: None, namespace: str, tmp_path: Path) -> Iterator[Place]:
    """A namespace, a store and controllers that end with the test. Whatever the test does, no status may ever be wrong."""
    made = Place(Api(api_cluster.client()), api_cluster.kubeconfig, namespace, tmp_path)
    made.history = StatusHistory(Api(api_cluster.client()), namespace)
    with made.history:
        yield made
        made.end()
    assert made.history.violations() == []


@pytest.fixture
def gpu_node(api_cluster: ApiCluster | GivenCluster) -> Iterator[None]:
    """A node of KWOK's with four GPUs, while the test runs."""
    if not api_cluster.owns_control_plane:
        pytest.skip("makes a node of its own")
    core = kubernetes.client.CoreV1Api(api_cluster.client())
    core.create_node(kwok_node("with-gpus", gpus=4))
    yield
    core.delete_node("with-gpus")


@pytest.fixture
def workers(api_cluster: ApiCluster | GivenCluster, place: Place) -> Iterator[StandInWorkers]:
    """What the pods of `place` do; never two attempts of one stage at once."""
    nodes = kubernetes.client.CoreV1Api(api_cluster.client()).list_node().items
    if not any("kwok.x-k8s.io/node" in (node.metadata.annotations or {}) for node in nodes):
        pytest.skip("NO KWOK HERE: the cluster of WARPCTL_TEST_KUBECONFIG would run the pods whose work is made up")
    with StandInWorkers(Api(api_cluster.client()), place.namespace) as stand_ins:
        yield stand_ins
        assert stand_ins.concurrent == []
