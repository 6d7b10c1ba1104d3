"""`warpctl export`: one point of the front as a model folder."""

from __future__ import annotations

from typing import Annotated

import typer

from warpctl.cli.options import RunArgument, StateDirOption


def export(
    run: RunArgument,
    *,
    to: Annotated[str, typer.Option("--to", metavar="DIR|URI", help="Where the model goes; a new or empty folder.")],
    liti_rate: Annotated[
        str,
        typer.Option(
            "--liti-rate", metavar="RATE", help="The point (1 - RATE) sft + RATE merged; 1 is the merged policy."
        ),
    ] = "",
    max_kl: Annotated[
        str,
        typer.Option("--max-kl", metavar="NATS", help="The evaluated point of highest reward with at most this KL."),
    ] = "",
    iteration: Annotated[
        int,
        typer.Option(
            "--iteration", min=0, show_default=False, help="With --liti-rate: of this iteration, not the last."
        ),
    ] = 0,
    state_dir: StateDirOption = "",
) -> None:
    """Write one point of the front as a model folder for transformers: float32 weights, tokenizer, model card."""
    from warpctl.cli.export_point import choose_by_kl, choose_by_rate, export_task
    from warpctl.cli.export_process import check_destination, run_export
    from warpctl.cli.run_reference import resolve
    from warpctl.cli.terminal import next_steps, result
    from warpctl.errors import UserError

    if bool(liti_rate) == bool(max_kl):
        raise UserError(
            "say which point: give either --liti-rate or --max-kl",
            hint="--max-kl 10 takes the best evaluated point with a KL of at most 10 nats",
        )
    if iteration and max_kl:
        raise UserError("--iteration goes with --liti-rate only", hint="--max-kl looks at all iterations")
    reference = resolve(run, state_dir)
    observed = reference.engine().observe()
    point = (
        choose_by_rate(reference, observed, liti_rate, iteration)
        if liti_rate
        else choose_by_kl(reference, observed, max_kl)
    )
    task = export_task(reference, observed, point, destination=to)
    is_there = check_destination(task)
    if not is_there:
        run_export(task)
    result(f"{point.label} of iteration {point.iteration}: {to}{' (was there already)' if is_there else ''}")
    if "://" not in to:
        next_steps(f"python -c 'from transformers import AutoModelForCausalLM as M; M.from_pretrained(\"{to}\")'")
