"""Checkpoints in a folder, written once for each part of the benchmark and removed at its end. Plain Python."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.merge.architecture import Architecture
from tests.benchmarks.merge.measure import TOP

RESERVE_BYTES = 2 * 10**9
"""Left free on the disk, whatever is measured."""


@dataclass(frozen=True)
class Models:
    """An init and its policies, one folder each."""

    architecture: Architecture
    folder: Path
    init: Path
    policies: Sequence[Path]

    @property
    def all(self) -> list[Path]:
        return [self.init, *self.policies]

    @property
    def num_bytes(self) -> int:
        """Read by a merge of all."""
        return len(self.all) * self.architecture.num_bytes


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free - RESERVE_BYTES


def require_space(folder: Path, num_bytes: int, what: str) -> None:
    """SystemExit unless so much is free, and some more."""
    if num_bytes > free_bytes(folder):
        raise SystemExit(
            f"error: {what} needs {num_bytes / 1e9:.1f} GB below {folder}, "
            f"{free_bytes(folder) / 1e9:.1f} GB are free beside {RESERVE_BYTES / 1e9:.0f} GB in reserve\n"
            "hint: name another --folder, or measure smaller models with --scale"
        )


@contextlib.contextmanager
def models(
    architecture: Architecture, folder: Path, *, num_policies: int, is_sparse: bool = False, keep: bool = False
) -> Iterator[Models]:
    """Write them (or find those that an earlier run kept), and remove them at the end unless they are to be kept."""
    all_of = Models(architecture, folder, folder / "init", [folder / f"policy-{m}" for m in range(1, num_policies + 1)])
    written = folder / "architecture.json"
    if not written.exists() or written.read_text() != f"{architecture.to_json()} {num_policies}":
        shutil.rmtree(folder, ignore_errors=True)
        for member, path in enumerate(all_of.all):
            program = [sys.executable, "-m", "tests.benchmarks.merge.checkpoint", architecture.to_json()]
            options = ["--sparse"] if is_sparse else []
            subprocess.run([*program, str(path), str(member), *options], cwd=TOP, check=True)
        written.write_text(f"{architecture.to_json()} {num_policies}")
    try:
        yield all_of
    finally:
        if not keep:
            shutil.rmtree(folder)
