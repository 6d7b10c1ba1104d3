"""`warpctl schema --crd` prints what an administrator applies, and nothing else."""

from __future__ import annotations

from ruamel.yaml import YAML
from typer.testing import CliRunner

from warpctl.cli.main import app
from warpctl.spec.crd import crd


def test_the_crd_goes_to_stdout_as_it_is():
    done = CliRunner().invoke(app, ["schema", "--crd"])
    assert done.exit_code == 0
    assert YAML(typ="safe").load(done.stdout) == crd()
