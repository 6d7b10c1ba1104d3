"""Prints logs, whole or as they grow; lines of several stages say whose they are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from warpctl.cli.log_sources import LogSource, Wanted, find_logs, is_wanted
from warpctl.cli.run_reference import RunReference
from warpctl.cli.terminal import result
from warpctl.engine import Engine
from warpctl.plan.observed import AttemptState, Observed
from warpctl.plan.stages import stages

PAUSE_SECONDS = 0.5


def print_logs(reference: RunReference, sources: Sequence[LogSource]) -> None:
    """Every log from its beginning."""
    has_prefix = len({source.stage_id for source in sources}) > 1
    for source in sources:
        data = source.file.read_bytes() if source.file is not None else reference.store.read_or_none(source.path) or b""
        print_log(source.stage_id, data, has_prefix=has_prefix)


def follow(reference: RunReference, engine: Engine, wanted: Wanted) -> None:
    """Print what is there and what comes, until no worker is left and no `warpctl run` would start another."""
    offsets: dict[Path, int] = {}
    has_prefix = not is_one_stage(reference, engine.observe(), wanted)
    while True:
        observed = engine.observe()
        is_last = not _is_going_on(reference, observed, wanted)
        for source in find_logs(reference, observed, wanted):
            if source.file is not None:
                data = _news(source.file, offsets.get(source.file, 0), is_last=is_last)
                offsets[source.file] = offsets.get(source.file, 0) + len(data)
                print_log(source.stage_id, data, has_prefix=has_prefix)
        if is_last:
            return
        time.sleep(PAUSE_SECONDS)


def _is_going_on(reference: RunReference, observed: Observed, wanted: Wanted) -> bool:
    graph = stages(reference.run, observed.imported())
    own = [stage for stage in graph.stages.values() if is_wanted(stage.id, wanted.stage)]
    keys = {stage.key for stage in own}
    if any(attempt.key in keys and attempt.state is AttemptState.ACTIVE for attempt in observed.active()):
        return True
    is_done = not graph.pending and all(observed.is_committed(stage.key) for stage in own)
    return reference.folder.is_held() and not is_done


def is_one_stage(reference: RunReference, observed: Observed, wanted: Wanted) -> bool:
    """Whether a single stage is wanted, those that are known after import included."""
    graph = stages(reference.run, observed.imported())
    return len([stage for stage in (*graph.stages, *graph.pending) if is_wanted(stage, wanted.stage)]) == 1


def _news(file: Path, offset: int, *, is_last: bool) -> bytes:
    """Whole lines beyond `offset`, at the end also a half one."""
    with file.open("rb") as opened:
        opened.seek(offset)
        data = opened.read()
    return data if is_last else data[: data.rfind(b"\n") + 1]


def print_log(stage_id: str, data: bytes, *, has_prefix: bool) -> None:
    """Its lines, each behind the stage's name where several are shown."""
    lines = data.decode(errors="replace").splitlines()
    if lines:
        result("\n".join(f"{stage_id} | {line}" if has_prefix else line for line in lines))
