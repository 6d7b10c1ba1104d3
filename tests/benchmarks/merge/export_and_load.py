"""Part e: the weights of an export, and what an evaluation loads, from a local store: GB/s."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Any

from tests.benchmarks.merge.architecture import LLAMA
from tests.benchmarks.merge.measure import TOP, Contestant, in_turns, make_warm, middle
from tests.benchmarks.merge.models import models, require_space
from tests.benchmarks.merge.sides import Settings

SCALE = 0.25
"""Of the model of part a: an evaluation holds float32 weights."""
WORKS = ("export-float32", "export-bfloat16", "load")


def export_and_load(settings: Settings) -> dict[str, Any]:
    """Rates by what was done. An export counts bytes read and written, a load bytes read; imports are not counted."""
    architecture = LLAMA.scaled(settings.scale * SCALE)
    require_space(settings.folder, 4 * architecture.num_bytes, "part e")
    program = [sys.executable, "-m", "tests.benchmarks.merge.export_side"]
    rates: dict[str, list[float]] = {work: [] for work in WORKS}
    with models(architecture, settings.folder / "export", num_policies=1, keep=settings.keep) as made:
        subprocess.run([*program, str(made.folder), "prepare"], cwd=TOP, check=True)

        def contestant(work: str) -> Contestant:
            answer = made.folder / f"{work}.json"

            def clear() -> None:
                if answer.exists():
                    said = json.loads(answer.read_text())
                    rates[work].append(said["bytes"] / said["seconds"] / 1e9)
                    answer.unlink()

            command = [*program, str(made.folder), work]
            return Contestant(work, lambda: command, answer, lambda: make_warm(made.all), {}, clear)

        samples = in_turns([contestant(work) for work in WORKS], settings.repeat)
    print(f"\ne. {architecture.num_parameters / 1e9:.3f} B parameters in bfloat16, warm")
    for work in WORKS:
        row = middle(samples[work])
        print(f"  {work:<18}{median(rates[work]):>6.2f} GB/s{row.cpu:>8.2f} cpu-s{row.peak_mib:>8.0f} MiB")
    return {f"{work.replace('-', '_')}_gb_per_s": float(f"{median(rates[work]):.3g}") for work in WORKS}
