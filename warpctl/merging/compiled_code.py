"""How numba compiles the merge's kernels, and where it keeps them: settled before numba is imported.

Compiling takes ten seconds, which a pod should not spend. So the images are built with compiled kernels, for any processor with
AVX2 and not for the one that built them. numba uses a folder only if it can write there, and a pod's root is read-only: what the
image has is copied to a temporary folder first.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

FOLDER = "WARPCTL_KERNELS"
"""Environment variable of the images: where their compiled kernels are."""
CPU = "x86-64-v3"


def prepare() -> None:
    """Set numba's environment, as far as the user has not: what is compiled in one place must be found in the other."""
    if "numba" in sys.modules:  # it reads its environment once
        return
    if platform.machine() == "x86_64" and "NUMBA_CPU_NAME" not in os.environ and _has_avx2():
        os.environ["NUMBA_CPU_NAME"] = CPU
        os.environ["NUMBA_CPU_FEATURES"] = ""  # those of the name, and no more that this machine has
    built = os.environ.get(FOLDER, "")
    if "NUMBA_CACHE_DIR" not in os.environ and built and Path(built).is_dir():
        with contextlib.suppress(OSError):  # no room for a copy: they are compiled again
            folder = tempfile.mkdtemp(prefix="warpctl-kernels-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            os.environ["NUMBA_CACHE_DIR"] = str(shutil.copytree(built, folder, dirs_exist_ok=True))


def _has_avx2() -> bool:
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return False
    return {"avx2", "fma", "bmi2"} <= set(flags.split())
