"""One place per backend, each a real one: a folder, memory, fake-gcs-server, moto."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.builders.contexts import import_publication
from tests.servers.fault_proxy import FaultProxy
from tests.servers.object_stores import ObjectStore, running_fake_gcs, running_moto
from warpctl.storage.publish import Publication
from warpctl.storage.store import Retries, Store

QUICK = Retries(
    attempts=6, wait_initial_seconds=0.02, wait_max_seconds=0.1, total_seconds=60.0, read_timeout_seconds=20.0
)
_numbers = itertools.count()


@dataclass(frozen=True)
class Place:
    """Where a test keeps its store; `proxy` is None where nothing can break."""

    uri: str
    proxy: FaultProxy | None

    def open(self, retries: Retries = QUICK) -> Store:
        return Store.open(self.uri, retries=retries)


@pytest.fixture(scope="session")
def fake_gcs() -> Iterator[ObjectStore]:
    with running_fake_gcs() as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[ObjectStore]:
    with running_moto() as server:
        yield server


def _at(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.proxy.clear()
    return Place(f"{server.scheme}://{server.bucket}/{next(_numbers)}/runs", server.proxy)


@pytest.fixture(params=["gcs", "s3"])
def cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A store behind HTTP, where things break."""
    return _at(request.getfixturevalue({"gcs": "fake_gcs", "s3": "moto"}[request.param]), monkeypatch)


@pytest.fixture(params=["file", "memory", "gcs", "s3"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Place:
    """Any store."""
    if request.param == "file":
        return Place(str(tmp_path / "store"), None)
    if request.param == "memory":
        return Place(f"memory://{os.getpid()}/{next(_numbers)}", None)
    return _at(request.getfixturevalue({"gcs": "fake_gcs", "s3": "moto"}[request.param]), monkeypatch)


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


@pytest.fixture
def cloud_store(cloud: Place) -> Store:
    return cloud.open()


@pytest.fixture
def attempt() -> Callable[..., Publication]:
    """A publication of attempt `attempt_id` of an import stage."""
    return partial(import_publication, key="k" * 64)
