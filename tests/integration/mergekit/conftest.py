"""mergekit in a virtual environment of its own: its dependencies are not ours (requirements/mergekit.txt, hashed)."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.mergekit.cases import write_cases

REQUIREMENTS = Path(__file__).parents[3] / "requirements" / "mergekit.txt"


def cache() -> Path:
    return Path(os.environ.get("WARPCTL_CACHE", "~/.cache/warpctl")).expanduser()


def find_uv() -> str:
    """uv from PATH, or the one that `make` installed."""
    return shutil.which("uv") or str(cache() / "bootstrap" / "bin" / "uv")


@pytest.fixture(scope="session")
def mergekit_python() -> Path:
    """The interpreter of the environment; made once for each content of the requirements file."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = cache() / "venvs" / f"mergekit-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    python, complete = folder / "bin" / "python", folder / "complete"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            uv = find_uv()
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "3.11", folder], check=True)
            install = [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", REQUIREMENTS]
            subprocess.run(install, check=True)
            complete.touch()
    return python


@pytest.fixture(scope="session")
def mergekit(mergekit_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models and recipes (cases.py), each recipe merged by mergekit, all in one process."""
    folder = tmp_path_factory.mktemp("mergekit")
    write_cases(folder)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [mergekit_python, Path(__file__).with_name("run_recipes.py"), folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder
