"""Stores in memory and on disk, publications of import stages, and manifests with small chunks."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders.contexts import import_publication
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store

_numbers = itertools.count()


@pytest.fixture
def memory() -> Store:
    return Store.open(f"memory://unit/{next(_numbers)}")


@pytest.fixture
def disk(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture(scope="session")
def publication() -> Callable[..., Publication]:
    """A publication of attempt `attempt_id`, at a fixed time."""
    return import_publication
