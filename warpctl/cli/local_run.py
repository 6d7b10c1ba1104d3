"""What `warpctl run` needs before it can begin: a machine that is large enough, a store that answers, an engine."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from warpctl.cli.run_loop import Display
from warpctl.cli.run_reference import RunReference
from warpctl.cli.terminal import warn
from warpctl.engine import Engine
from warpctl.errors import UserError
from warpctl.executors.local import LocalExecutor
from warpctl.executors.places import Machine
from warpctl.plan.stages import rl_id
from warpctl.spec.compute import num_cores
from warpctl.spec.pod import PodTemplate
from warpctl.spec.stage_input import StageKind
from warpctl.spec.warp_run import Control, WarpRun
from warpctl.storage.store import Store


@dataclass(frozen=True)
class LocalRun:
    """An engine and the executor that it drives."""

    engine: Engine
    executor: LocalExecutor


def make_local_run(
    reference: RunReference, machine: Machine, *, environment: Mapping[str, str], retry_since: datetime
) -> LocalRun:
    """Failures that ended before `retry_since` are pardoned."""
    executor = LocalExecutor(reference.run, reference.store, reference.folder.path, machine, environment)
    return LocalRun(Engine(reference.run, executor, reference.store, retry_since=retry_since), executor)


def check_machine(run: WarpRun, machine: Machine) -> None:
    """UserError for a stage that can never start here; a warning for settings that a local run skips."""
    for kind in StageKind:
        compute = run.spec.compute.of(kind)
        if compute.gpus > len(machine.gpus):
            raise UserError(
                f"spec.compute.{kind}.gpus asks for {compute.gpus} GPUs, this machine has {len(machine.gpus)}",
                hint="lower it, or set CUDA_VISIBLE_DEVICES",
            )
        if compute.nodes > 1:
            warn(f"spec.compute.{kind}.nodes is {compute.nodes}; a local run uses this machine alone")
        if kind in (StageKind.RL, StageKind.EVALUATE) and compute.gpus > 1:
            warn(f"spec.compute.{kind}.gpus is {compute.gpus}; workers of this version compute on one of them")
        skipped = compute.pod_template.model_fields_set - {"env"}
        if skipped:
            names = ", ".join(sorted(PodTemplate.model_fields[name].alias or name for name in skipped))
            warn(f"spec.compute.{kind}.podTemplate: a local run skips {names}")


def check_store(store: Store) -> None:
    """UserError for a store that workers cannot reach; a warning for one that cannot create only once."""
    if store.root.startswith("memory:"):
        raise UserError(
            f"{store.root} lives in one process, and workers are processes of their own",
            hint="use a folder, gs:// or s3:// as spec.storage.uri",
        )
    try:
        store.probe()
    except UserError as error:
        warn(error.message, hint=error.hint)


def units(run: WarpRun) -> dict[str, float]:
    """How much work each RL run is, in steps, by stage id."""
    spec = run.spec
    iterations = range(1, spec.iterations + 1)
    steps = {i: float(spec.training.steps_of(i)) for i in iterations}
    found = {rl_id(i, member): steps[i] for i in iterations for member in range(1, spec.rl_runs + 1)}
    for control in spec.controls:
        whole = spec.rl_runs * sum(steps.values())
        found[f"control/{control}/rl"] = whole if control is Control.COMPUTE_MATCHED else steps[1]
    return found


def num_slots(run: WarpRun, machine: Machine) -> int:
    """RL runs that `machine` can do at once."""
    slots = max(1, machine.cores // num_cores(run.spec.compute.rl))
    if run.spec.compute.rl.gpus:
        slots = min(slots, len(machine.gpus) // run.spec.compute.rl.gpus)
    return slots


@contextlib.contextmanager
def display_for(reference: RunReference, *, slots: int, is_compact: bool = False) -> Iterator[Display]:
    """A live tree on a terminal, lines elsewhere; `slots` RL runs at once are what its remaining time counts on."""
    if not sys.stderr.isatty():
        from warpctl.cli.plain_display import PlainDisplay

        yield PlainDisplay()
        return
    from warpctl.cli.live_display import LiveDisplay

    run = reference.run
    with LiveDisplay(
        units=units(run),
        slots=min(slots, run.spec.parallelism or slots),
        load_front=reference.front,
        is_compact=is_compact,
    ) as display:
        yield display
