"""The commands that are compared: the copy, the tool, the merge stage, mergekit. Plain Python."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.merge.measure import TOP, Contestant, make_cold, make_warm, may_drop_all
from tests.benchmarks.merge.models import Models

LITI_RATE = "0.3"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Settings:
    """What the command line chose."""

    folder: Path
    repeat: int
    scale: float
    keep: bool
    mergekit: Path | None
    """Interpreter of the environment that has mergekit; None: our side alone."""
    obstore: Path | None
    whole_machine: bool
    """A cold page cache is the machine's, not that of the models' files alone."""
    layers: int | None
    """Of Gemma-7B; None: as many as the disk has room for."""


@functools.cache
def has_tool() -> bool:
    """Whether this version of warpctl has `merge`."""
    command = [sys.executable, "-m", "warpctl", "merge", "--help"]
    return subprocess.run(command, cwd=TOP, capture_output=True, check=False).returncode == 0


def copy_command(models: Models, output: Path, *, copies: int = 1) -> list[str]:
    """Read the policies, copy the init: the bytes that a merge reads and, `copies` times the size of the init, writes."""
    read = [str(path) for policy in models.policies for path in sorted(policy.glob("*.safetensors"))]
    init = [str(path) for path in sorted(models.init.glob("*.safetensors"))]
    steps = [f"cat {shlex.join(read)} > /dev/null"]
    for number in range(copies):
        target = shlex.quote(str(output / str(number)))
        # never sparse, never a reference: each byte is read and written
        steps.append(f"mkdir -p {target} && cp --sparse=never --reflink=never {shlex.join(init)} {target}")
    return ["sh", "-c", " && ".join(steps)]


def tool_command(init: str | Path, policies: Sequence[str | Path], output: str | Path) -> list[str]:
    """The tool as a user starts it, with one bfloat16 output: the next init."""
    members = [part for policy in policies for part in ("--policy", str(policy))]
    target = ["--liti-rate", LITI_RATE, "--out", str(output), "--dtype", "bfloat16"]
    return [sys.executable, "-m", "warpctl", "merge", "--init", str(init), *members, *target]


def mergekit_command(python: Path, models: Models, output: Path) -> list[str]:
    """nuslerp, then linear for LITI: two programs, since a recipe is one method."""
    first, second, merged = output / "nuslerp.json", output / "linear.json", output / "merged"
    output.mkdir(parents=True, exist_ok=True)
    members = [{"model": str(policy), "parameters": {"weight": 0.5}} for policy in models.policies]
    parts = [
        {"model": str(model), "parameters": {"weight": weight}}
        for model, weight in ((models.init, 1 - float(LITI_RATE)), (merged, float(LITI_RATE)))
    ]
    common = {"dtype": "bfloat16"}
    first.write_text(
        json.dumps({"merge_method": "nuslerp", "base_model": str(models.init), "models": members, **common})
    )
    second.write_text(json.dumps({"merge_method": "linear", "models": parts, **common}))
    program = [str(python.with_name("mergekit-yaml")), "--no-copy-tokenizer", "--quiet"]
    runs = ([*program, str(first), str(merged)], [*program, str(second), str(output / "liti")])
    return ["sh", "-c", " && ".join(map(shlex.join, runs))]


class Stage:
    """A store with the models published, and merge stages on it, each under a key of its own."""

    def __init__(self, store: str, models: Models, environment: dict[str, str] | None = None) -> None:
        program = [sys.executable, "-m", "tests.benchmarks.merge.stage_store", store, *map(str, models.all)]
        self._store = store
        inherited = {**os.environ, **(environment or {})}
        done = subprocess.run(program, cwd=TOP, env=inherited, stdout=subprocess.PIPE, text=True, check=True)
        self._stage_input = json.loads(done.stdout.splitlines()[-1])

    def folders(self) -> list[str]:
        """URIs of the folders that hold init and policies, as plain model folders."""
        return [f"{self._store}/stages/import/{each['key']}/attempts/1/files" for each in self._stage_input["inputs"]]

    def command(self, *program: str) -> list[str]:
        """env sets the stage input: it is another one for each run. `program`: python's arguments, the worker's own without."""
        text = json.dumps({**self._stage_input, "key": f"{next(_numbers):064x}"})
        return ["env", f"WARPCTL_STAGE_INPUT={text}", sys.executable, *(program or ("-m", "warpctl.workers.merge"))]


def contestant(
    name: str,
    settings: Settings,
    models: Models,
    command: Callable[[Path], Sequence[str | Path]],
    *,
    is_cold: bool,
    output: Path | None = None,
) -> Contestant:
    """A command on local models, which is given where its output goes."""
    target = output or settings.folder / "out"
    folders = [path.parent for path in [settings.folder / "store" / "stages" / "import"] if path.exists()]

    def prepare() -> None:
        if is_cold:
            make_cold([*models.all, *folders], whole_machine=settings.whole_machine)
        else:
            make_warm(models.all)

    return Contestant(
        name=f"{name}, {'cold' if is_cold else 'warm'}",
        command=lambda: command(target),
        output=target,
        prepare=prepare,
        environment={"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        clear=lambda: shutil.rmtree(target, ignore_errors=True),
    )


def says_cold(settings: Settings) -> str:
    if settings.whole_machine:
        return "the machine's page cache dropped (/proc/sys/vm/drop_caches), programs and libraries too"
    why = "" if may_drop_all() else "; not root"
    return f"the models' files dropped from the page cache (posix_fadvise){why}"
