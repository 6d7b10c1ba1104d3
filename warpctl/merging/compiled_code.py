"""The kernels as machine code: found, or compiled and kept.

Compiling takes ten seconds, which a pod should not spend: images are built with the code for the processors below. Elsewhere it
is compiled once, and kept beside the loops or, where that folder is not one's own, below the user's cache folder. llvmlite loads
it in milliseconds; numba is needed only to compile.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from warpctl.errors import FinalError, RetryableError

FOLDER = "WARPCTL_KERNELS"
"""Environment variable of the images: where their compiled kernels are."""
ARGUMENTS = {"inner_products": "uuiiiuui", "combine": "uuiiiufuuu"}
"""Of each kernel: i and u are integers of 64 bits, addresses among them; f is a float64."""
_KINDS: dict[str, Any] = {"i": ctypes.c_int64, "u": ctypes.c_uint64, "f": ctypes.c_double}
_LOOPS = Path(__file__).parent / "loops"
_DIGEST_BYTES = 32
_LOCK = threading.Lock()
_UNUSED = ctypes.create_string_buffer(16)
"""numba's functions take two places before their arguments, for a result and for an exception; there is neither."""


@dataclass(frozen=True)
class Processor:
    """What code is compiled for: an LLVM processor with features added or taken away, and the flags it asks of this machine."""

    name: str
    features: str = ""
    flags: frozenset[str] = frozenset()


_AVX2 = frozenset({"abm", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"})
_AVX512 = _AVX2 | {f"avx512{part}" for part in ("f", "bw", "cd", "dq", "vl")}
# LLVM keeps to half of AVX-512's width of its own accord, which took a quarter longer for inner products here.
_X86_64 = (Processor("x86-64-v4", "-prefer-256-bit", _AVX512), Processor("x86-64-v3", "", _AVX2))
PROCESSORS = _X86_64 if platform.machine() in ("x86_64", "AMD64") else (Processor("generic"),)
"""What images are built for, the best first."""


def this_processor() -> Processor:
    """The best that this machine is."""
    has = _flags()
    return next((each for each in PROCESSORS if each.flags <= has), Processor("x86-64"))


@functools.cache
def kernel(name: str) -> Callable[..., None]:
    """A function of the compiled code, to be called with integers and floats; other threads run meanwhile."""
    prototype = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *map(_KINDS.__getitem__, ARGUMENTS[name])
    )
    with _LOCK:  # threads that come here at once must not each make an engine: the code of all but one would be freed
        address = _engine().get_function_address(name)
    if not address:
        raise FinalError(f"the merge's compiled kernels have no {name}", hint="report this as a bug of warpctl")
    return functools.partial(prototype(address), ctypes.addressof(_UNUSED), ctypes.addressof(_UNUSED) + 8)


@functools.cache
def _engine() -> Any:
    """Kept for the life of the process: the code lies in it."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(_code(this_processor())))
    engine.finalize_object()
    return engine


def _code(processor: Processor) -> bytes:
    name = file_name(processor)
    for folder in _folders():
        code = _read(folder / name)
        if code is not None:
            return code
    code = compile_for(processor)
    for folder in _folders():
        with contextlib.suppress(OSError):  # not ours, or full: the next one, or it is compiled again
            write(folder / name, code)
            break
    return code


def file_name(processor: Processor) -> str:
    """Named by what it was compiled from, by what, and for what: one folder may serve several machines."""
    found = hashlib.sha256()
    here = Path(__file__)
    for path in (*sorted(_LOOPS.glob("*.py")), here, here.with_name("task_vector.py"), here.with_name("kernels.py")):
        found.update(path.read_bytes())
    compiler = [f"{name} {version(name)}" for name in ("numba", "llvmlite")]
    found.update(repr((sys.platform, platform.machine(), processor.features, compiler)).encode())
    return f"kernels-{processor.name}-{found.hexdigest()[:16]}.bin"


def compile_for(processor: Processor) -> bytes:
    """Machine code for a processor of this machine's kind, which need not be this one."""
    package = str(_LOOPS.parents[2])
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": processor.name,
        "NUMBA_CPU_FEATURES": processor.features,
        "NUMBA_DISABLE_JIT": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))),
    }
    with tempfile.TemporaryDirectory(prefix="warpctl-kernels-") as folder:
        target = Path(folder) / "kernels.o"
        command = [sys.executable, "-P", "-m", "warpctl.merging.loops.compile", str(target)]
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode == -signal.SIGKILL:
            raise RetryableError(
                "compiling the merge's kernels was killed",
                hint="it takes 300 MiB of memory once; images bring them compiled",
            )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise FinalError(
                f"the merge's kernels cannot be compiled for {processor.name}: {last}",
                hint="install warpctl anew: numba and llvmlite must fit each other",
            )
        return target.read_bytes()


def write(path: Path, code: bytes) -> None:
    """With its digest before it, in one step: two processes may come to the same end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".kernels-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)  # an image's pods are not the user that built it
            file.write(hashlib.sha256(code).digest() + code)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise


def _read(path: Path) -> bytes | None:
    """None when it is not there, or not what was written: it would not end in an error but in nonsense."""
    with contextlib.suppress(OSError):
        if path.stat().st_uid not in (0, os.geteuid()):
            return None  # somebody else's code
        data = path.read_bytes()
        digest, code = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(code).digest() == digest:
            return code
    return None


def _folders() -> Iterator[Path]:
    """Where code may be, and may be kept; an image's folder is one of them."""
    if built := os.environ.get(FOLDER):
        yield Path(built)
    yield _LOOPS / "__pycache__"
    with contextlib.suppress(RuntimeError):  # a pod's uid without a home
        given = Path(os.environ.get("XDG_CACHE_HOME", ""))
        yield (given if given.is_absolute() else Path.home() / ".cache") / "warpctl" / "kernels"


def _flags() -> frozenset[str]:
    """Of the processor, as Linux names them."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return frozenset(next(line for line in lines if line.startswith("flags")).split())
    return frozenset()


if __name__ == "__main__":
    for each in PROCESSORS:
        write(Path(sys.argv[1]) / file_name(each), compile_for(each))
