"""Where the logs of a run lie: files of this machine's attempts, objects of everybody's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from warpctl import artifacts
from warpctl.cli.run_reference import RunReference
from warpctl.errors import UserError
from warpctl.executors.local import LocalExecutor
from warpctl.executors.places import Machine
from warpctl.plan.observed import Attempt, Observed
from warpctl.plan.stages import Stage, stages


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which logs: of the stages at or below `stage`; the newest attempt, the one before it, or the one of this number."""

    stage: str = ""
    is_previous: bool = False
    number: int = 0


@dataclass(frozen=True, slots=True)
class LogSource:
    """The log of one attempt; `file` when it is on this machine, else `path` in the store."""

    stage_id: str
    file: Path | None
    path: str = ""


def find_logs(reference: RunReference, observed: Observed, wanted: Wanted) -> list[LogSource]:
    """Logs in the order of the graph; UserError when the run has no such stage."""
    return [
        source
        for stage in wanted_stages(reference, observed, wanted)
        for source in _sources(reference, stage, observed, wanted)
    ]


def wanted_stages(reference: RunReference, observed: Observed, wanted: Wanted) -> list[Stage]:
    """Stages whose keys are known, in the order of the graph; UserError when the run has no such stage."""
    graph = stages(reference.run, observed.imported())
    matching = [stage for stage in graph.stages.values() if is_wanted(stage.id, wanted.stage)]
    if not matching and not any(is_wanted(stage_id, wanted.stage) for stage_id in graph.pending):
        kinds = sorted({stage_id.split("/")[0] for stage_id in (*graph.stages, *graph.pending)})
        raise UserError(
            f'the run has no stage "{wanted.stage}"', hint=f"a stage is named such as rl/1/2; kinds: {', '.join(kinds)}"
        )
    return matching


def is_wanted(stage_id: str, prefix: str) -> bool:
    """Whether a stage is `prefix` or below it."""
    return not prefix or stage_id == prefix or stage_id.startswith(f"{prefix}/")


def _sources(reference: RunReference, stage: Stage, observed: Observed, wanted: Wanted) -> Iterator[LogSource]:
    attempt = chosen(observed.attempts.get(stage.key, ()), wanted)
    if attempt is not None:
        file = local_log(reference, attempt)
        if file.exists():
            yield LogSource(stage.id, file)
            return
    yield from stored_logs(reference, stage, observed, wanted)


def stored_logs(reference: RunReference, stage: Stage, observed: Observed, wanted: Wanted) -> Iterator[LogSource]:
    """What a worker has left in the store at its end: of the attempt of a number, of the one before the newest, or else of the one
    that was published.
    """
    committed = observed.committed.get(stage.key)
    if wanted.number or wanted.is_previous:
        paths = _stored(reference, stage)
        known = sorted({attempt.number for attempt in observed.attempts.get(stage.key, ())} | set(paths))
        number = wanted.number or (known[-2] if len(known) > 1 else 0)
        if number in paths:
            yield LogSource(stage.id, None, paths[number])
    elif committed is not None:
        path = artifacts.log(stage.kind, stage.key, committed.attempt_id)
        if reference.store.stat(path) is not None:
            yield LogSource(stage.id, None, path)


def local_log(reference: RunReference, attempt: Attempt) -> Path:
    """The file that this machine keeps of an attempt."""
    executor = LocalExecutor(reference.run, reference.store, reference.folder.path, Machine(cores=1), environment={})
    return executor.log_file(attempt)


def chosen(attempts: tuple[Attempt, ...], wanted: Wanted) -> Attempt | None:
    """The attempt that is wanted, of those that the executor still knows."""
    if wanted.number:
        return next((attempt for attempt in attempts if attempt.number == wanted.number), None)
    position = -2 if wanted.is_previous else -1
    return attempts[position] if len(attempts) >= -position else None


def _stored(reference: RunReference, stage: Stage) -> dict[int, str]:
    """Attempt number -> path of its log. Attempt ids begin with their number."""
    folder = artifacts.attempts(stage.kind, stage.key)
    found = {}
    for file in reference.store.list(folder):
        attempt, _, name = file.path.removeprefix(f"{folder}/").partition("/")
        if name == "log.txt":
            found[int(attempt.partition("-")[0])] = file.path
    return found
