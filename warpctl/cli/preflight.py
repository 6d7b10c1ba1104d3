"""What can be seen to be missing before anything starts: local files to import, and functions that cannot be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from warpctl.cli.run_reference import RunReference
from warpctl.errors import Problem, SpecError
from warpctl.plan.observed import Observed
from warpctl.plan.stages import EVALUATION_PROMPTS, PROMPTS, SFT, stages
from warpctl.spec.models import CheckpointReward, FunctionReward, Reward, SourceSplit
from warpctl.spec.source import Location, compose, dotted
from warpctl.spec.stage_input import StageKind
from warpctl.spec.warp_run import WarpRun
from warpctl.storage.local_files import local_source

IMPORT_SECONDS = 120.0
"""A reward that takes longer than this to import is left to its worker."""
_TRY_IMPORT = """
import importlib, json, sys
from contextlib import redirect_stdout
module, _, name = sys.argv[1].partition(":")
try:
    with redirect_stdout(sys.stderr):
        getattr(importlib.import_module(module), name)
except BaseException as error:
    print(json.dumps([type(error).__name__, (str(error).splitlines() or [""])[0], getattr(error, "name", None)]))
"""


def check_sources(reference: RunReference, observed: Observed) -> None:
    """SpecError, with every one at its line, when local files or folders that are still to be imported are not there."""
    graph = stages(reference.run, observed.imported())
    missing = [
        (at, uri)
        for stage_id, at, uri in _sources(reference.run)
        if not observed.is_committed(graph.stages[stage_id].key)
        and (path := local_source(uri)) is not None
        and not path.exists()
    ]
    _raise(
        reference,
        [
            (
                at,
                "names nothing on this machine",
                f'"{uri}"',
                "a relative path counts from the spec's folder; is it typed right?",
            )
            for at, uri in missing
        ],
    )


def check_functions(reference: RunReference, observed: Observed, *, environment: Mapping[str, str]) -> None:
    """SpecError when a reward's function cannot be imported the way that workers will, unless everything is published."""
    graph = stages(reference.run, observed.imported())
    users = [stage for stage in graph.stages.values() if stage.kind in (StageKind.RL, StageKind.EVALUATE)]
    if not graph.pending and all(observed.is_committed(stage.key) for stage in users):
        return
    found = []
    for at, reward in _rewards(reference.run):
        if isinstance(reward, FunctionReward):
            why = _why_not_importable(reward.function, environment)
            if why:
                hint = _function_hint(reference, reward.function)
                found.append(((*at, "function"), f"cannot be imported ({why})", f'"{reward.function}"', hint))
    _raise(reference, found)


def _sources(run: WarpRun) -> Iterator[tuple[str, Location, str]]:
    """(stage that imports it, where the spec says so, URI)."""
    spec = run.spec
    yield SFT, ("spec", "models", "sft", "uri"), spec.models.sft.uri
    for at, reward in _rewards(run):
        if isinstance(reward, CheckpointReward):
            yield f"import/reward/{reward.name}", (*at, "uri"), reward.uri
    yield PROMPTS, ("spec", "prompts", "uri"), spec.prompts.uri
    split = spec.prompts.evaluation_split
    if isinstance(split, SourceSplit):
        yield EVALUATION_PROMPTS, ("spec", "prompts", "evaluationSplit", "uri"), split.uri


def _rewards(run: WarpRun) -> Iterator[tuple[Location, Reward]]:
    models = run.spec.models
    for name, rewards in (("rewards", models.rewards), ("heldOutRewards", models.held_out_rewards)):
        for number, reward in enumerate(rewards):
            yield ("spec", "models", name, number), reward


def _why_not_importable(function: str, environment: Mapping[str, str]) -> str:
    """In a process of its own, as workers are; "" when it can be, or takes too long to find out."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _TRY_IMPORT, function],
            env={**environment},
            capture_output=True,
            text=True,
            timeout=IMPORT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    if not done.stdout.strip():
        return ""
    kind, text, _ = json.loads(done.stdout.splitlines()[-1])
    return text if kind in ("ModuleNotFoundError", "AttributeError") else f"{kind}: {text}"


def _function_hint(reference: RunReference, function: str) -> str:
    """The very command, when the module lies beside the spec or in the current folder."""
    module, _, name = function.partition(":")
    file = Path(*module.split("."))
    for folder in dict.fromkeys((reference.spec_path.absolute().parent, Path.cwd())):
        candidates = (folder / file.with_suffix(".py"), folder / file / "__init__.py")
        if any(path.exists() for path in candidates) and str(folder) not in os.environ.get("PYTHONPATH", "").split(":"):
            return f"workers do not look beside the spec: PYTHONPATH={folder} warpctl run {reference.typed}"
    return (
        f"install the package that has {module} with its {name} in this environment, or name its folder in PYTHONPATH"
    )


def _raise(reference: RunReference, found: list[tuple[Location, str, str, str]]) -> None:
    if not found:
        return
    source = str(reference.spec_path)
    values = compose(reference.spec_path.read_text(encoding="utf-8-sig"), source=source).values
    problems = []
    for at, message, value, hint in found:
        place = values.get(at)
        problems.append(
            Problem(
                path=dotted(at),
                message=message,
                value=value,
                hint=hint,
                source=source,
                line=place.line if place else 0,
                column=place.column if place else 0,
            )
        )
    raise SpecError(tuple(problems))
