"""A WarpRun that another version of warpctl has written is refused in a sentence."""

from __future__ import annotations

import pytest

from warpctl import __version__
from warpctl.cli.cluster_run import run_of
from warpctl.errors import UserError


def test_a_field_that_this_version_does_not_know_is_named() -> None:
    found = {
        "apiVersion": "warpctl.dev/v1alpha1",
        "kind": "WarpRun",
        "metadata": {"name": "demo", "namespace": "ml", "uid": "1", "resourceVersion": "1"},
        "spec": {"storage": {"uri": "gs://a/b"}, "distillation": {}},
    }

    with pytest.raises(
        UserError, match=rf"WarpRun demo is not one that warpctl {__version__} can read: spec\."
    ) as error:
        run_of(found)

    assert "another version" in error.value.hint
