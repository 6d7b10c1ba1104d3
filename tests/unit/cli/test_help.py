"""Help is instant, its words are reviewed, and no flag comes or goes unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.conftest import TOP
from tests.unit.cli.golden import check
from warpctl.cli.main import app
from warpctl.cli.reference import PAGE, commands, help_text, reference_page

CLUSTER = ["--cluster", "--context", "--kubeconfig", "--namespace"]
FROZEN = {
    "": ["--help", "--install-completion", "--no-color", "--show-completion", "--version"],
    "validate": ["--help", "SPEC"],
    "plan": ["--detailed-exitcode", "--help", "--output", "--state-dir", "RUN"],
    "run": ["--help", "--state-dir", "--yes", "SPEC"],
    "status": [*CLUSTER, "--exit-code", "--help", "--output", "--state-dir", "RUN"],
    "logs": [*CLUSTER, "--attempt", "--follow", "--help", "--node", "--previous", "--state-dir", "RUN", "STAGE"],
    "report": [*CLUSTER, "--again", "--compare", "--help", "--state-dir", "--to", "RUN"],
    "export": [
        *CLUSTER,
        "--dtype",
        "--help",
        "--iteration",
        "--liti-rate",
        "--max-kl",
        "--push",
        "--state-dir",
        "--to",
        "RUN",
    ],
    "merge": [
        "--dry-run",
        "--dtype",
        "--granularity",
        "--help",
        "--init",
        "--liti-rate",
        "--max-shard-size",
        "--memory",
        "--merged-out",
        "--order",
        "--out",
        "--output",
        "--policy",
        "--recipe",
    ],
    "gc": ["--dry-run", "--even-without-runs", "--help", "--min-age", "--output", "--yes", "STORAGE|SPEC"],
    "apply": [
        "--context",
        "--dry-run",
        "--force-conflicts",
        "--help",
        "--kubeconfig",
        "--namespace",
        "--wait",
        "--yes",
        "SPEC",
    ],
    "diff": ["--context", "--help", "--kubeconfig", "--namespace", "--output", "SPEC"],
    "watch": ["--compact", "--context", "--help", "--kubeconfig", "--namespace", "NAME"],
    "get": ["--all-namespaces", "--context", "--help", "--kubeconfig", "--namespace", "--output", "NAME"],
    "suspend": ["--context", "--help", "--kubeconfig", "--namespace", "NAME"],
    "resume": ["--context", "--help", "--kubeconfig", "--namespace", "NAME"],
    "cancel": ["--context", "--help", "--kubeconfig", "--namespace", "--why", "NAME"],
    "retry": ["--context", "--help", "--kubeconfig", "--namespace", "NAME"],
    "refresh": ["--context", "--help", "--kubeconfig", "--namespace", "NAME"],
    "delete": ["--context", "--help", "--kubeconfig", "--namespace", "--yes", "NAME"],
    "controller": [
        "--config",
        "--context",
        "--help",
        "--kubeconfig",
        "--lease-namespace",
        "--namespace",
        "--port",
    ],
    "schema": ["--crd", "--help", "--json", "FIELD"],
    "version": ["--help"],
}


def test_the_flags_and_arguments_are_these() -> None:
    """A new one needs a line here, a help text and a test."""
    found = {"": sorted(_names(app_command()))} | {name: sorted(_names(each)) for name, each in commands().items()}

    assert found == {name: sorted(flags) for name, flags in FROZEN.items()}


def app_command():
    import typer

    return typer.main.get_command(app)


def _names(command) -> list[str]:
    names = ["--help"]
    for parameter in command.params:
        long = [option for option in parameter.opts if option.startswith("--")]
        names += long or [parameter.metavar]
    return sorted(set(names))


@pytest.mark.parametrize("name", FROZEN)
def test_help_says_what_it_said(name: str) -> None:
    check(f"help{'-' if name else ''}{name}.txt", help_text(name))


def test_the_page_of_commands_is_what_help_says() -> None:
    """docs/cli.md is written by `python -m warpctl.cli.reference > docs/cli.md`."""
    assert (TOP / PAGE).read_text() == reference_page()


HEAVY = ("torch", "fsspec", "numpy", "rich", "ruamel", "structlog", "blake3")


@pytest.mark.parametrize(
    ("argument", "heavy"),
    [
        ("--help", (*HEAVY, "pydantic")),
        ("--version", (*HEAVY, "pydantic")),
        ("run --help", HEAVY),  # typer itself takes pydantic to read the arguments of a command
    ],
)
def test_help_loads_nothing_that_only_commands_need(argument: str, heavy: tuple[str, ...]) -> None:
    program = (
        "import sys\n"
        "from warpctl.cli.main import run_command\n"
        f"code = run_command({argument.split()!r})\n"
        f"heavy = set({heavy!r}) & set(sys.modules)\n"
        "sys.exit(f'{code} {sorted(heavy)}' if heavy or code else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_python_dash_m_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "warpctl", "--version"], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.startswith("warpctl 0.")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("warpctl st", "status"), ("warpctl export --li", "--liti-rate"), ("warpctl gc --even", "--even-without-runs")],
)
def test_bash_completes_commands_and_options(typed: str, offered: str, tmp_path: Path) -> None:
    """With the very script that `--show-completion bash` prints, in a real bash."""
    program = tmp_path / "warpctl"
    program.write_text(f"#!{sys.executable}\nfrom warpctl.cli.main import main\nmain()\n")
    program.chmod(0o755)
    script = f"""
        eval "$(warpctl --show-completion bash)"
        COMP_WORDS=({typed}); COMP_CWORD={len(typed.split()) - 1}
        _warpctl_completion warpctl
        echo "${{COMPREPLY[@]}}"
    """
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.stdout, done.returncode) == (f"{offered}\n", 0), done.stderr
