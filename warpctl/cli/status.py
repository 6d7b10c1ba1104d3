"""`warpctl status`: what is seen of a run now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from warpctl.cli.any_run import ClusterOption
from warpctl.cli.cluster import ContextOption, KubeconfigOption, NamespaceOption
from warpctl.cli.options import OutputOption, RunArgument, StateDirOption
from warpctl.cli.output import OutputFormat

if TYPE_CHECKING:
    from warpctl.spec.status import RunStatus


def status(
    run: RunArgument,
    *,
    output: OutputOption = OutputFormat.TABLE,
    is_exit_code_wanted: Annotated[
        bool, typer.Option("--exit-code", help="Exit 1 unless the run has succeeded.")
    ] = False,
    is_in_cluster: ClusterOption = False,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    state_dir: StateDirOption = "",
) -> None:
    """Look at a run anew: conditions, stages, front; in a cluster also its Events. Changes nothing."""
    from datetime import UTC, datetime

    from warpctl.cli.any_run import resolve_any
    from warpctl.cli.front_text import front_text, report_place
    from warpctl.cli.output import emit
    from warpctl.cli.stage_table import reasons, stages_text
    from warpctl.cli.status_text import conditions_text, headline
    from warpctl.cli.terminal import next_steps
    from warpctl.spec.status import SUCCEEDED

    reference = resolve_any(
        run, state_dir, is_in_cluster=is_in_cluster, namespace=namespace, context=context, kubeconfig=kubeconfig
    )
    seen = reference.look(datetime.now(UTC))

    def tables() -> str:
        front = front_text(reference)
        parts = [
            headline(seen, is_attended=reference.is_in_cluster or reference.folder.is_held()),
            conditions_text(seen),
            stages_text(seen, is_wide=output is OutputFormat.WIDE),
        ]
        parts += ["\n".join(reasons(seen.stages))]
        parts += [f"{front.table}\n{front.best}".rstrip()] if front else []
        place = report_place(reference)
        parts.append(reference.events_text())
        return "\n\n".join(part for part in [*parts, f"report: {place}" if place else ""] if part)

    emit(
        output,
        document=seen.model_dump(mode="json", by_alias=True),
        names=[stage.id for stage in seen.stages],
        tables=tables,
    )
    if output.is_for_people:
        next_steps(*_next(run, seen, is_in_cluster=reference.is_in_cluster))
    if is_exit_code_wanted and not seen.is_true(SUCCEEDED):
        raise typer.Exit(1)


def _next(run: str, seen: RunStatus, *, is_in_cluster: bool) -> tuple[str, str]:
    from warpctl.spec.status import STALLED, SUCCEEDED

    flag = " --cluster" if is_in_cluster else ""
    if seen.is_true(SUCCEEDED):
        return f"warpctl report {run}{flag}", f"warpctl export {run}{flag} --max-kl 10 --to DIR"
    if seen.is_true(STALLED):
        again = f"warpctl retry {run}" if is_in_cluster else f"warpctl run {run}"
        return f"warpctl logs {run}{flag}", f"{again}  # tries again"
    on = f"warpctl watch {run}" if is_in_cluster else f"warpctl run {run}  # starts it or goes on"
    return f"warpctl logs {run}{flag} --follow", on
