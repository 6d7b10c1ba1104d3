"""`warpctl export`: one point of the front as a model folder."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from warpctl.cli.any_run import ClusterOption
from warpctl.cli.cluster import ContextOption, KubeconfigOption, NamespaceOption
from warpctl.cli.options import RunArgument, StateDirOption


class Dtype(StrEnum):
    """How weights are stored."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def export(
    run: RunArgument,
    *,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="DIR|URI", help="Where the model goes: a new or empty folder, or hf://owner/name."
        ),
    ],
    liti_rate: Annotated[
        str,
        typer.Option(
            "--liti-rate", metavar="RATE", help="The point (1 - RATE) sft + RATE merged; 1 is the merged policy."
        ),
    ] = "",
    max_kl: Annotated[
        str,
        typer.Option(
            "--max-kl",
            metavar="NATS",
            help="The best evaluated point with at most this KL, by the held-out reward if there is one.",
        ),
    ] = "",
    iteration: Annotated[
        int,
        typer.Option(
            "--iteration", min=0, show_default=False, help="With --liti-rate: of this iteration, not the last."
        ),
    ] = 0,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="How the weights are stored.")] = Dtype.FLOAT32,
    is_push: Annotated[
        bool, typer.Option("--push", help="Really upload to hf://; without it, only say what would be uploaded.")
    ] = False,
    is_in_cluster: ClusterOption = False,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    state_dir: StateDirOption = "",
) -> None:
    """Write one point of the front as a model folder for transformers: weights, tokenizer, model card, spec and front.

    With hf://owner/name it is a dry run until --push is given.
    """
    from warpctl.cli.any_run import resolve_any
    from warpctl.cli.export_point import choose_by_kl, choose_by_rate, export_task
    from warpctl.cli.export_process import check_destination, is_hub, run_export
    from warpctl.cli.export_text import files_text, point_text
    from warpctl.cli.terminal import next_steps, result
    from warpctl.errors import UserError
    from warpctl.workers.hub_upload import repository_of

    if bool(liti_rate) == bool(max_kl):
        raise UserError(
            "say which point: give either --liti-rate or --max-kl",
            hint="--max-kl 10 takes the best evaluated point with a KL of at most 10 nats",
        )
    if iteration and max_kl:
        raise UserError("--iteration goes with --liti-rate only", hint="--max-kl looks at all iterations")
    if is_push and not is_hub(to):
        raise UserError("--push goes with --to hf://owner/name only", hint="a folder is written without it")
    if is_hub(to):
        repository_of(to)
    reference = resolve_any(
        run, state_dir, is_in_cluster=is_in_cluster, namespace=namespace, context=context, kubeconfig=kubeconfig
    )
    observed = reference.engine().observe()
    point = (
        choose_by_rate(reference, observed, liti_rate, iteration)
        if liti_rate
        else choose_by_kl(reference, observed, max_kl)
    )
    task = export_task(reference, observed, point, destination=to, dtype=dtype.value)
    if is_hub(to) and not is_push:
        result(f"{point_text(point, task)}\n\n{files_text(task)}")
        next_steps(
            f"warpctl export {_again(f'{run} --cluster' if reference.is_in_cluster else run, liti_rate, max_kl, iteration, dtype)} --to {to} --push  # uploads"
        )
        return
    is_there = not is_hub(to) and check_destination(task)
    place = to if is_there else run_export(task) or to
    result(f"{point_text(point, task)}\n{place}{' (was there already)' if is_there else ''}")
    if "://" not in to:
        next_steps(f"python -c 'from transformers import AutoModelForCausalLM as M; M.from_pretrained(\"{to}\")'")


def _again(run: str, liti_rate: str, max_kl: str, iteration: int, dtype: Dtype) -> str:
    """The arguments that choose the same point."""
    parts = [run, f"--liti-rate {liti_rate}" if liti_rate else f"--max-kl {max_kl}"]
    parts += [f"--iteration {iteration}"] if iteration else []
    parts += [f"--dtype {dtype.value}"] if dtype is not Dtype.FLOAT32 else []
    return " ".join(parts)
