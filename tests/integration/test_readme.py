"""The README's commands do what it says: they are taken from its text and run, in order, by a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.small_run import make_small_laboratory, small_spec

TOP = Path(__file__).parents[2]
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def commands() -> list[str]:
    """Every command line of the README's shell blocks, comments cut off."""
    lines = [line for block in BLOCK.findall((TOP / "README.md").read_text()) for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def test_the_two_commands_are_verbs_of_the_makefile() -> None:
    """They cannot be run here: this test is inside one of them, and CI runs the other's parts."""
    verbs = [command.removeprefix("make ") for command in commands() if command.startswith("make ")]
    dry = [subprocess.run(["make", "-n", verb], cwd=TOP, capture_output=True, text=True, check=False) for verb in verbs]

    assert verbs == ["demo", "test"]
    assert [run.returncode for run in dry] == [0, 0]


def test_every_other_command_runs_in_the_order_of_the_readme(tmp_path: Path) -> None:
    """The spec at specs/tiny-cpu.yaml is a smaller one here, with a home of its own."""
    from ruamel.yaml import YAML

    laboratory = make_small_laboratory(tmp_path / "tiny")
    (tmp_path / "specs").mkdir()
    with (tmp_path / "specs" / "tiny-cpu.yaml").open("w") as file:
        YAML().dump(small_spec(laboratory, str(tmp_path / "store")), file)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "WARPCTL_STATE_DIR": str(tmp_path / "state"),
        "HOME": str(tmp_path),
    }
    outputs = {}
    for command in commands():
        if command.startswith(("make ", "source ")):
            continue
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        outputs[command.split()[1]] = done.stdout + done.stderr

    assert list(outputs) == ["validate", "plan", "run", "status", "logs", "export", "gc", "merge"]
    assert "succeeded" in outputs["run"]
    assert (tmp_path / "policy" / "model.safetensors").exists()


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (TOP / "README.md").read_text())
    missing = [link for link in links if not link.startswith("http") and not (TOP / link).exists()]

    assert links
    assert missing == []
