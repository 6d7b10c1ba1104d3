"""Images for the node tier, without an engine and without anybody's registry: debootstrap makes the base that images/*/Containerfile
are built on, buildah builds, and a registry of ours holds what pods pull.

Layers, the base and the registry's content stay in <cache>/images, so that an image is made once for each content of its sources.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.cluster.harness import binaries
from tests.cluster.harness.state import TOP
from tests.servers.go_programs import build, cache_folder, locked

REGISTRY = "registry.warpctl.test"
"""As pods name it; containerd is told where it is."""
PAUSE = f"{REGISTRY}/pause:1"
NAMES = ("slim", "worker")
"""Folders below images/."""
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
INDEX_SETTINGS = {
    "pip.conf": ("/etc/pip.conf", "~/.config/pip/pip.conf"),
    "uv.toml": ("/etc/uv/uv.toml", "~/.config/uv/uv.toml"),
}
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def folder() -> Path:
    """Where images are kept between runs."""
    path = cache_folder() / "images"
    path.mkdir(parents=True, exist_ok=True)
    return path


def prepare() -> None:
    """Make the base image and the pause image unless they are there."""
    with locked(folder() / "lock"):
        _base()
        _pause()


def ensure(name: str, registry: str) -> str:
    """The image of images/<name>/Containerfile in the registry, built of the working tree as it is; returns its name for pods."""
    tag = source_digest(name)
    with locked(folder() / "lock"):
        if not _is_pushed(registry, f"warpctl/{name}", tag):
            _push(_build(name, tag), registry, f"warpctl/{name}", tag)
    return f"{REGISTRY}/warpctl/{name}:{tag}"


def build_image(name: str) -> None:
    """Build it where its sources have changed."""
    with locked(folder() / "lock"):
        _build(name, source_digest(name))


def ensure_base(registry: str) -> str:
    """The base image in the registry: Debian and its Python."""
    with locked(folder() / "lock"):
        local = _base()
        name, _, tag = local.removeprefix("localhost/").partition(":")
        if not _is_pushed(registry, name, tag):
            _push(local, registry, name, tag)
    return f"{REGISTRY}/{name}:{tag}"


def push_pause(registry: str) -> None:
    """Without it no pod starts."""
    with locked(folder() / "lock"):
        if not _is_pushed(registry, "pause", "1"):
            _push(_pause(), registry, "pause", "1")


def source_digest(name: str) -> str:
    """A tag that changes whenever something changes that goes into the image."""
    digest = hashlib.sha256(_base_name().encode())
    for path in _sources(name):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(TOP)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def registry_command(state: Path, address: str) -> list[str]:
    """The command line of a registry that listens at host:port; its content outlives the cluster."""
    content = folder() / "registry"
    configuration = state / "registry.yml"
    configuration.write_text(
        "version: 0.1\n"
        "log: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {content}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '{address}'}}\n"
    )
    return [str(binaries.REGISTRY.path()), "serve", str(configuration)]


def _sources(name: str) -> Iterable[Path]:
    yield TOP / "images" / name / "Containerfile"
    yield TOP / "requirements" / "build.txt"
    yield TOP / "requirements" / f"{name}.txt"
    yield from (TOP / file for file in ("pyproject.toml", "README.md", "LICENSE"))
    yield from sorted(
        path for path in (TOP / "warpctl").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )


def _build(name: str, tag: str) -> str:
    local = f"localhost/warpctl-{name}:{tag}"
    if _exists(local):
        return local
    print(f"building the image {local}", file=sys.stderr, flush=True)
    packages = Path("~/.cache/uv").expanduser()  # what .ci/setup has fetched need not be fetched again
    packages.mkdir(parents=True, exist_ok=True)
    _buildah(
        "bud",
        "--layers",
        "--quiet",
        f"--file={TOP / 'images' / name / 'Containerfile'}",
        f"--tag={local}",
        f"--build-arg=BASE={_base()}",
        "--build-arg=CACHE=--cache-dir=/cache",
        f"--volume={packages}:/cache",
        *(f"--volume={AUTHORITIES}:{AUTHORITIES}:ro" for _ in range(AUTHORITIES.exists())),
        *_index_secrets(),
        str(TOP),
    )
    return local


def _index_secrets() -> Iterable[str]:
    """How this machine reaches its package index: read while building, and in no layer."""
    for name, places in INDEX_SETTINGS.items():
        for place in places:
            path = Path(place).expanduser()
            if path.is_file():
                yield f"--secret=id={name},src={path}"
                break


def _base_name() -> str:
    return f"localhost/python-base:{_suite()}-{hashlib.sha256(BASE_PACKAGES.encode()).hexdigest()[:8]}"


def _base() -> str:
    name = _base_name()
    if _exists(name):
        return name
    print(f"making the base image {name} by debootstrap", file=sys.stderr, flush=True)
    tree = folder() / "base-tree"
    _run("rm", "-rf", str(tree))
    _run("debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", _suite(), str(tree), *_mirror())
    for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        _run("rm", "-rf", str(tree / waste))
    recipe = folder() / "base.Containerfile"
    # A name as the Python images have it, for what says python.
    recipe.write_text("FROM scratch\nCOPY . /\nRUN ln -sf python3 /usr/bin/python\n")
    _buildah("bud", "--quiet", f"--file={recipe}", f"--tag={name}", str(tree))
    _run("rm", "-rf", str(tree))
    return name


def _suite() -> str:
    """The release of this host: its keyring and its mirror are here."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def _mirror() -> list[str]:
    """The first package source of this host, which it can reach; read here, written down nowhere."""
    for path in [*sorted(Path("/etc/apt/sources.list.d").glob("*.sources")), Path("/etc/apt/sources.list")]:
        if path.is_file() and (
            found := re.search(r"^(?:URIs:|deb(?: \[.*?\])?)\s+(\S+)", path.read_text(), re.MULTILINE)
        ):
            return [found[1]]
    return []


def _pause() -> str:
    name = "localhost/pause:1"
    if not _exists(name):
        program = build("pause", ".", module=binaries.MODULES / "pause")
        context = folder() / "pause"
        context.mkdir(exist_ok=True)
        (context / "pause").write_bytes(program.read_bytes())
        (context / "pause").chmod(0o755)
        (context / "Containerfile").write_text(
            'FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n'
        )
        _buildah("bud", "--quiet", f"--file={context / 'Containerfile'}", f"--tag={name}", str(context))
    return name


def _push(local: str, registry: str, name: str, tag: str) -> None:
    print(f"pushing {name}:{tag}", file=sys.stderr, flush=True)
    # Not compressed: the way is short, and gzip of gigabytes takes minutes.
    _buildah(
        "push", "--quiet", "--tls-verify=false", "--disable-compression", local, f"docker://{registry}/{name}:{tag}"
    )


def _is_pushed(registry: str, name: str, tag: str) -> bool:
    request = Request(f"http://{registry}/v2/{name}/manifests/{tag}", method="HEAD", headers={"Accept": MANIFESTS})
    try:
        with urlopen(request, timeout=30):
            return True
    except HTTPError as error:
        error.close()
        if error.code != 404:
            raise
        return False


def _exists(name: str) -> bool:
    command = [*_buildah_command(), "images", "--quiet", name]
    return subprocess.run(command, capture_output=True, check=False, env=_environment()).returncode == 0


def _buildah(*arguments: str) -> None:
    _run(*_buildah_command(), *arguments)


def _buildah_command() -> list[str]:
    return ["buildah", f"--root={folder() / 'storage'}", f"--runroot={folder() / 'run'}", "--storage-driver=overlay"]


def _environment() -> dict[str, str]:
    return os.environ | {"BUILDAH_ISOLATION": "chroot"}


def _run(*command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=_environment(), stdin=subprocess.DEVNULL
    )
    if done.returncode:
        said = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        raise RuntimeError(f"{_shown(command)} failed with {done.returncode}:\n{said}")


def _shown(command: Sequence[str]) -> str:
    return " ".join(part for part in command if not part.startswith(("--root", "--runroot", "--storage-driver")))
