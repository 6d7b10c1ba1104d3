"""`warpctl watch`: a run of a cluster as it goes, in the same picture as `warpctl run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from warpctl.cli.cluster import ContextOption, KubeconfigOption, NameArgument, NamespaceOption

if TYPE_CHECKING:
    from warpctl.cli.cluster_run import ClusterRun
    from warpctl.cli.run_loop import Display
    from warpctl.cli.stop_signals import StopSignals
    from warpctl.spec.status import RunStatus

PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 15.0


def watch(
    name: NameArgument,
    *,
    is_compact: Annotated[
        bool, typer.Option("--compact", help="One row for members of an iteration that have the same to say.")
    ] = False,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
) -> None:
    """Show a run's iterations and stages as they go: a live tree on a terminal, elsewhere one line a change.

    Ends with the run: exit 0 when it has succeeded, 1 when it stalls or is deleted. Ctrl-C stops looking, not the run.
    """
    from warpctl.cli.cluster_run import resolve_in_cluster
    from warpctl.cli.local_run import display_for
    from warpctl.cli.stop_signals import StopSignals
    from warpctl.cli.terminal import next_steps, result
    from warpctl.errors import EXIT_CTRL_C, EXIT_DONE, EXIT_FAILED
    from warpctl.spec.status import READY, SUCCEEDED

    reference = resolve_in_cluster(name, namespace, context, kubeconfig)
    shown = display_for(reference, slots=reference.run.spec.rl_runs, is_compact=is_compact)
    with StopSignals() as signals, shown as display:
        last = _until_the_end(reference, display, signals)
    if last is None:
        next_steps(f"warpctl status {name} --cluster")
        raise typer.Exit(EXIT_CTRL_C)
    ready = last.condition(READY)
    result(f"{name}: {ready.reason}: {ready.message}")
    if last.is_true(SUCCEEDED):
        next_steps(f"warpctl report {name} --cluster", f"warpctl export {name} --cluster --max-kl 10 --to DIR")
        raise typer.Exit(EXIT_DONE)
    next_steps(f"warpctl logs {name} --cluster", f"warpctl retry {name}  # tries again")
    raise typer.Exit(EXIT_FAILED)


def _until_the_end(reference: ClusterRun, display: Display, signals: StopSignals) -> RunStatus | None:
    """The last status of a run that succeeded or stalled; None when the user has seen enough."""
    from datetime import datetime

    from warpctl.cli.cluster_run import UNREADABLE, look_at_jobs, refreshed, see_shared_stages, seen_by_controller
    from warpctl.kube.errors import ClusterUnavailableError
    from warpctl.plan.progress import summarise

    engine = None
    failures = 0
    while not signals.count:
        try:
            reference = refreshed(reference)
            world = look_at_jobs(reference.connection, reference.namespace)
            now = reference.connection.api.server_time()
        except ClusterUnavailableError as error:
            failures += 1
            pause = min(PAUSE_SECONDS * 2 ** (failures - 1), LONGEST_PAUSE_SECONDS)
            display.say(f"the API server does not answer ({error.message}); next look in {pause:.0f} s")
            signals.wait(pause)
            continue
        failures = 0
        try:
            if engine is None or engine.run != reference.run or engine.store is not reference.store:
                engine, executor = reference.engine_and_executor(world)
            executor.world = world
            see_shared_stages(engine, executor)
            status = reference.seen(summarise(reference.run, engine.observe(), now))
            attempts = executor.attempts()
        except UNREADABLE:
            status, attempts = seen_by_controller(reference), {}
        retry_at = {each.key: datetime.fromisoformat(each.retry_at) for each in status.stages if each.retry_at}
        display.show(status, attempts, retry_at, now)
        if _is_over(reference, status):
            return status
        signals.wait(PAUSE_SECONDS)
    return None


def _is_over(reference: ClusterRun, status: RunStatus) -> bool:
    """Whether the controller has said the last word about this spec."""
    from warpctl.cli.cluster_run import has_stalled
    from warpctl.spec.status import SUCCEEDED

    if reference.status.get("observedGeneration", 0) < reference.found["metadata"].get("generation", 0):
        return False
    return status.is_true(SUCCEEDED) or has_stalled(status)
