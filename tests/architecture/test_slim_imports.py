"""The control plane and the slim workers stay light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.architecture.slim_modules import HEAVY_LIBRARIES, SLIM_WORKERS, slim_modules

HERE = Path(__file__).parent
# What `warpctl --help` has no use for: numerics, clouds, hubs, templates.
NOT_FOR_HELP = (
    *HEAVY_LIBRARIES,
    *(
        "numba",
        "numpy",
        "fsspec",
        "gcsfs",
        "s3fs",
        "aiohttp",
        "google",
        "botocore",
        "huggingface_hub",
        "httpx",
        "jinja2",
        "blake3",
    ),
)


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_no_module_of_the_control_plane_or_a_slim_worker_imports_torch() -> None:
    done = run_python(str(HERE / "slim_modules.py"))

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == slim_modules()


def test_the_slim_workers_are_among_them() -> None:
    assert [name for name in SLIM_WORKERS if name not in slim_modules()] == []


def test_help_imports_nothing_heavy() -> None:
    """`warpctl --help` answers at once because of what it does not import."""
    program = (
        "import contextlib, io, sys\n"
        "sys.argv = ['warpctl', '--help']\n"
        "from warpctl.cli.main import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:\n"
        "    main()\n"
        "assert 'validate' in text.getvalue(), text.getvalue()\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = run_python("-c", program)

    assert done.returncode == 0, done.stderr
    assert sorted(set(done.stdout.split()) & set(NOT_FOR_HELP)) == []
