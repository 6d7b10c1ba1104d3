"""make bench-merge: merging beside the copy of the same bytes, beside mergekit and beside obstore, in the same run, in turns.

    python -m tests.benchmarks.merge [--only a b c d e] [--scale 0.05] [--mergekit PYTHON] [--obstore PYTHON]

a: 1.10 B parameters on a local disk; b: 2, 4, 8 policies; c: Gemma-7B's shapes; d: gs://; e: export and evaluation load.
The last line is JSON. Plain Python: what is measured runs in processes of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.merge.export_and_load import export_and_load
from tests.benchmarks.merge.gemma import gemma_7b
from tests.benchmarks.merge.local_disk import more_policies, two_policies
from tests.benchmarks.merge.measure import TOP, may_drop_all
from tests.benchmarks.merge.object_store import from_and_to_gs
from tests.benchmarks.merge.sides import Settings, has_tool

PARTS = {"a": two_policies, "b": more_policies, "c": gemma_7b, "d": from_and_to_gs, "e": export_and_load}
PROMISED = (
    "over_copy_cold",
    "over_copy_warm",
    "mergekit_over_ours",
    "peak_rss_mib",
    "gs_over_floor",
    "gemma7b_peak_rss_mib",
)
"""Figures of the last line, null where a part was not run."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    cache = Path(os.environ.get("WARPCTL_CACHE", "~/.cache/warpctl")).expanduser()
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.merge")
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), default=sorted(PARTS))
    parser.add_argument("--scale", type=float, default=1.0, help="of all models: 0.05 for a quick look")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each command; medians are printed")
    parser.add_argument("--folder", type=Path, default=cache / "bench-merge", help="where models and outputs go")
    parser.add_argument("--keep", action="store_true", help="leave the models there for the next run")
    parser.add_argument("--mergekit", type=Path, help="the interpreter that has mergekit; left out: our side alone")
    parser.add_argument("--obstore", type=Path, help="the interpreter that has obstore; left out: no floor for gs://")
    parser.add_argument(
        "--cold", choices=["machine", "files"], help="what is dropped from the page cache (machine: root)"
    )
    parser.add_argument("--gemma-layers", type=int, help="of part c; left out: as many as the disk has room for")
    return parser.parse_args(arguments)


def settings_of(chosen: argparse.Namespace) -> Settings:
    cold = chosen.cold or ("machine" if may_drop_all() else "files")
    return Settings(
        folder=chosen.folder.absolute() / "run",
        repeat=chosen.repeat,
        scale=chosen.scale,
        keep=chosen.keep,
        mergekit=chosen.mergekit,
        obstore=chosen.obstore,
        whole_machine=cold == "machine",
        layers=chosen.gemma_layers,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = parse(arguments)
    settings = settings_of(chosen)
    settings.folder.mkdir(parents=True, exist_ok=True)
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False).stdout.strip()
    load = os.getloadavg()[0]
    print(
        f"commit {commit}; load {load:.2f} on {os.cpu_count()} cores; {'tool and stage' if has_tool() else 'no tool yet'}"
    )
    figures: dict[str, Any] = dict.fromkeys(PROMISED)
    try:
        for part in chosen.only:
            figures |= PARTS[part](settings)
    finally:
        if not settings.keep:
            shutil.rmtree(settings.folder)
    print(json.dumps({**figures, "scale": settings.scale, "load": round(load, 2), "commit": commit}))


if __name__ == "__main__":
    main()
