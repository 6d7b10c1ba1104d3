"""Part e: the weights of an export, and what an evaluation loads, from a local store: GB/s, cpu-seconds and peak of that alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from statistics import median
from typing import Any

from tests.benchmarks.merge.architecture import LLAMA
from tests.benchmarks.merge.measure import TOP, Contestant, in_turns, make_warm
from tests.benchmarks.merge.models import models, require_space
from tests.benchmarks.merge.sides import Settings

SCALE = 0.25
"""Of the model of part a: an evaluation holds float32 weights."""
WORKS = ("export-float32", "export-bfloat16", "load", "load-kept", "verify")
MIB = 1024**2


def export_and_load(settings: Settings) -> dict[str, Any]:
    """Rates by what was done. An export counts bytes read and written, a load bytes read; the process's start is not counted."""
    architecture = LLAMA.scaled(settings.scale * SCALE)
    require_space(settings.folder, 4 * architecture.num_bytes, "part e")
    program = [sys.executable, "-m", "tests.benchmarks.merge.export_side"]
    said: dict[str, list[Mapping[str, float]]] = {work: [] for work in WORKS}
    with models(architecture, settings.folder / "export", num_policies=1, keep=settings.keep) as made:
        subprocess.run([*program, str(made.folder), "prepare"], cwd=TOP, check=True)

        def contestant(work: str) -> Contestant:
            answer = made.folder / f"{work}.json"

            def clear() -> None:
                if answer.exists():
                    said[work].append(json.loads(answer.read_text()))
                    answer.unlink()

            command = [*program, str(made.folder), work]
            return Contestant(work, lambda: command, answer, lambda: make_warm(made.all), {}, clear)

        in_turns([contestant(work) for work in WORKS], settings.repeat)
    rates = {work: median(run["bytes"] / run["seconds"] / 1e9 for run in said[work]) for work in WORKS}
    peaks = {work: max(run["peak_bytes"] for run in said[work]) / MIB for work in WORKS}
    held = 4 * architecture.num_parameters / MIB
    print(f"\ne. {architecture.num_parameters / 1e9:.3f} B parameters in bfloat16 ({held:.0f} MiB as float32), warm")
    for work in WORKS:
        cpu = median(run["cpu_seconds"] for run in said[work])
        print(f"  {work:<18}{rates[work]:>6.2f} GB/s{cpu:>8.2f} cpu-s{peaks[work]:>8.0f} MiB")
    return {
        **{f"{work.replace('-', '_')}_gb_per_s": float(f"{rates[work]:.3g}") for work in WORKS},
        "load_peak_over_model": float(f"{peaks['load'] / held:.3g}"),
        "load_kept_peak_over_model": float(f"{peaks['load-kept'] / held:.3g}"),
    }
