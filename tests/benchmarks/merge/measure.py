"""What one command takes: wall time until it ends and until its output is on the disk, cpu-seconds, peak memory; page caches.

Plain Python: ru_maxrss of a child begins with the memory of the process that starts it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

TOP = Path(__file__).parents[3]
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
LOG_BYTES = 3000
BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}
"""Programs keep their bytecode, as an installed one has it."""


@dataclass(frozen=True)
class Sample:
    """One run of a command."""

    ended: float
    """Seconds until the process ended."""
    synced: float
    """Seconds until its output was on the disk, too."""
    cpu: float
    """Seconds of processor time, user and system, of all its processes."""
    peak_mib: float
    """The largest resident set of any of its processes."""


@dataclass(frozen=True)
class Contestant:
    """A command that is run in turns with others. `prepare` comes before each run, outside of the clock."""

    name: str
    command: Callable[[], Sequence[str | Path]]
    output: Path
    prepare: Callable[[], None]
    environment: Mapping[str, str]
    clear: Callable[[], None]
    """Removes the output."""


def measured(command: Sequence[str | Path], *, output: Path | None, environment: Mapping[str, str]) -> Sample:
    """Run a command, then fsync whatever it left below `output`; SystemExit with its last words when it fails."""
    log = Path(os.environ.get("TMPDIR", "/tmp")) / f"bench-merge-{os.getpid()}.log"
    with log.open("w+b") as file:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=TOP,
            env={**os.environ, **BYTECODE, **environment},
            stdout=file,
            stderr=file,
        )
        _, status, usage = os.wait4(process.pid, 0)
        ended = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if output is not None and process.returncode == 0:
            sync(output)
        synced = time.perf_counter() - start
        file.seek(0)
        said = file.read().decode(errors="replace")
    log.unlink()
    if process.returncode:
        raise SystemExit(f"error: {' '.join(map(str, command))} ended with {process.returncode}:\n{said[-LOG_BYTES:]}")
    return Sample(ended, synced, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def in_turns(contestants: Sequence[Contestant], repeat: int) -> dict[str, list[Sample]]:
    """Every contestant `repeat` times, the order turned round each time."""
    samples: dict[str, list[Sample]] = {one.name: [] for one in contestants}
    for number in range(repeat):
        for one in contestants if number % 2 == 0 else contestants[::-1]:
            one.clear()
            os.sync()  # nobody pays for what another one left to be written
            one.prepare()
            samples[one.name].append(measured(one.command(), output=one.output, environment=one.environment))
            one.clear()
            print(f"  {one.name}: {samples[one.name][-1].synced:.2f} s", file=sys.stderr, flush=True)
    return samples


def middle(samples: Sequence[Sample]) -> Sample:
    """Medians, each on its own; the largest peak."""
    return Sample(
        median(one.ended for one in samples),
        median(one.synced for one in samples),
        median(one.cpu for one in samples),
        max(one.peak_mib for one in samples),
    )


def files_below(path: Path) -> Iterator[Path]:
    return (found for found in sorted(path.rglob("*")) if found.is_file()) if path.is_dir() else iter([path])


def sync(output: Path) -> None:
    """fsync files and folders of an output: a cp leaves its bytes to the kernel, a committed artifact may not."""
    for path in [*files_below(output), *(found for found in output.rglob("*") if found.is_dir())]:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def make_warm(folders: Sequence[Path]) -> None:
    """Read all files, so that the page cache has them as far as memory goes."""
    buffer = bytearray(1 << 20)
    for folder in folders:
        for path in files_below(folder):
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def make_cold(folders: Sequence[Path], *, whole_machine: bool) -> None:
    """Drop the page cache: the machine's (programs and libraries too), or these files' alone."""
    if whole_machine:
        DROP_CACHES.write_text("1")
        return
    for folder in folders:
        for path in files_below(folder):
            number = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(number)


def may_drop_all() -> bool:
    return os.access(DROP_CACHES, os.W_OK)
