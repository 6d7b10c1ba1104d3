"""Kernels that were compiled elsewhere are used, though their folder may not be written to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from warpctl.merging import compiled_code

USED = """
from warpctl.merging import kernels
found = [kernels._inner_products, kernels._combine]
print(*(sum(each.stats.cache_hits.values()) for each in found), *(sum(each.stats.cache_misses.values()) for each in found))
import os
print(os.environ.get("NUMBA_CACHE_DIR", ""))
"""


def kernels_in(folder: Path, **environment: str) -> list[str]:
    """What a process says of its kernels: hits, misses, and the folder that numba was given."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    tree = str(Path(compiled_code.__file__).parents[2])  # what is tested, wherever an editable install points
    done = subprocess.run(
        [sys.executable, "-P", "-c", USED],
        env={**own, "PYTHONPATH": tree, "TMPDIR": str(folder), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_compiled_kernels_are_found_again_and_nothing_is_left_behind(tmp_path: Path) -> None:
    built, temporary = tmp_path / "built", tmp_path / "temporary"
    temporary.mkdir()

    first = kernels_in(temporary, NUMBA_CACHE_DIR=str(built))
    files = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    second = kernels_in(temporary, WARPCTL_KERNELS=str(built))

    assert first[:4] == ["0", "0", "1", "1"]
    assert second[:4] == ["1", "1", "0", "0"]
    assert second[4].startswith(str(temporary))
    assert list(temporary.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == files


def test_a_users_own_settings_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    monkeypatch.delenv("NUMBA_CPU_FEATURES", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "mine")
    monkeypatch.setenv(compiled_code.FOLDER, str(tmp_path))

    compiled_code.prepare()

    assert (os.environ["NUMBA_CPU_NAME"], os.environ["NUMBA_CACHE_DIR"]) == ("generic", "mine")
    assert "NUMBA_CPU_FEATURES" not in os.environ
