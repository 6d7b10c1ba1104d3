"""python -m warpctl.tiny --out FOLDER [--seed 0] [--width 128]: make the tiny laboratory, about 40 cpu-seconds."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from warpctl.tiny.recipe import Recipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, then import what is heavy."""
    parser = argparse.ArgumentParser(prog="python -m warpctl.tiny", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to make: sft/, reward/, prompts/")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is made")
    parser.add_argument("--width", type=int, default=128, help="hidden size of the policy")
    chosen = parser.parse_args(arguments)

    from warpctl.tiny.laboratory import make_laboratory

    start = time.monotonic()

    def report(line: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - start:5.1f} s] {line}\n")
        sys.stdout.flush()

    try:
        make_laboratory(chosen.out, Recipe(seed=chosen.seed, width=chosen.width), report)
    except FileExistsError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
