"""The repository is laid out as CONTRIBUTING.md says, and holds no trace of the machine it was written on."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
ALLOWED_AT_TOP = {
    *(".ci", ".gitignore", "docs", "images", "manifests", "requirements", "specs", "tests", "warpctl"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"),
}
VAGUE_NAMES = {"utils.py", "util.py", "helpers.py", "common.py", "manager.py", "misc.py"}
THIS_MACHINE = {"localhost", "127.0.0.1"}
INDEX_SETTINGS = (
    *("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf", "/etc/uv/uv.toml", "~/.config/uv/uv.toml"),
    *("~/.npmrc", "/etc/apt/sources.list"),
)


def tracked() -> list[Path]:
    """Files that git knows or would take up; a deleted one is left out."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True).stdout.split("\0")
    return [path for path in (TOP / name for name in names if name) if path.is_file()]


def source_files() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py"]


def containing(traces: set[str]) -> list[str]:
    """Files in which one of the texts stands; the texts themselves are not repeated."""
    found = []
    for path in tracked():
        text = path.read_bytes()
        if any(trace.encode() in text for trace in traces):
            found.append(str(path.relative_to(TOP)))
    return found


def section(heading: str) -> str:
    """The text of one section of CONTRIBUTING.md."""
    return (TOP / "CONTRIBUTING.md").read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_the_map_in_contributing_names_every_folder_and_none_that_is_gone() -> None:
    named = set(re.findall(r"`([\w./-]+/)`", section("Map of the tree").strip().split("\n\n", 1)[0]))
    files = [path.relative_to(TOP).parts for path in tracked()]
    folders = {f"{'/'.join(parts[:depth])}/" for parts in files for depth in range(1, len(parts))}
    wanted = {folder for folder in folders if folder.count("/") == 1 + folder.startswith(("warpctl/", "tests/"))}

    assert sorted(wanted - named) == []
    assert sorted(named - folders) == []


def test_the_top_level_holds_what_it_should_and_nothing_else() -> None:
    assert {path.relative_to(TOP).parts[0] for path in tracked()} - ALLOWED_AT_TOP == set()


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [str(path) for path in source_files() if path.name in VAGUE_NAMES] == []


def test_no_source_file_is_longer_than_500_lines() -> None:
    assert [str(path) for path in source_files() if len(path.read_text().splitlines()) > 500] == []


def test_unit_tests_mirror_the_package() -> None:
    mirrored = {
        path.name for path in (TOP / "tests" / "unit").iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    folders = {path.name for path in (TOP / "warpctl").iterdir() if path.is_dir()}

    assert mirrored <= folders


def test_every_dependency_has_its_reason_in_contributing() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[\[<>=~! ]", requirement)[0] for group in groups for requirement in group}
    explained = set(re.findall(r"[\w.-]+", section("Why each dependency is there")))

    assert sorted(names - explained) == []


def test_no_path_of_this_machine_is_committed() -> None:
    traces = {f"{TOP}/"} | {
        f"{path}/" for path in (Path.home(), TOP.parent) if len(path.parts) > 2 or path == Path.home()
    }

    assert containing({trace for trace in traces if trace not in {"//", "/tmp/"}}) == []  # compared only


def test_no_host_of_a_package_registry_is_committed() -> None:
    """As this machine is set up: read here, written down nowhere."""
    texts = [value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "GOPROXY", "npm_config"))]
    texts += [path.read_text() for path in map(Path.expanduser, map(Path, INDEX_SETTINGS)) if path.is_file()]
    hosts = {host for text in texts for host in re.findall(r"://(?:[^/@\s]*@)?([A-Za-z0-9.-]+)", text)} - THIS_MACHINE

    assert containing({host for host in hosts if not host.startswith(("deb.", "security."))}) == []


@pytest.mark.parametrize("name", ["base.txt", "bootstrap.txt", "build.txt", "dev.txt", "slim.txt", "worker.txt"])
def test_requirements_are_pinned_with_hashes_and_name_no_index(name: str) -> None:
    lines = (TOP / "requirements" / name).read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith((" ", "#"))]

    assert [line for line in lines if "://" in line or line.startswith("-")] == []
    assert [line for line in requirements if "==" not in line or not line.endswith("\\")] == []


def test_the_base_requirements_are_those_of_the_whole_without_torch() -> None:
    def pins(name: str) -> set[str]:
        lines = (TOP / "requirements" / name).read_text().splitlines()
        return {line.split(" ")[0] for line in lines if line and not line.startswith((" ", "#"))}

    assert pins("base.txt") <= pins("dev.txt")
    assert {pin.partition("==")[0] for pin in pins("base.txt")} & {"torch", "transformers", "safetensors"} == set()
