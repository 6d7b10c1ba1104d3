"""The builders of tests/builders/fronts.py as fixtures."""

import pytest

from tests.builders import fronts


@pytest.fixture
def evaluated_run():
    return fronts.make_run


@pytest.fixture
def evaluated_point():
    return fronts.make_point


@pytest.fixture
def named_point():
    return fronts.make_named
