"""`warpctl merge`: the merge of a run for checkpoints that no run of warpctl made."""

from __future__ import annotations

from typing import Annotated

import typer

from warpctl.cli.export import Dtype
from warpctl.cli.options import OutputOption
from warpctl.cli.output import OutputFormat
from warpctl.spec.merge_method import Granularity, SlerpOrder


def merge(
    *,
    init: Annotated[
        str,
        typer.Option(
            "--init",
            metavar="DIR|URI",
            show_default=False,
            help="The checkpoint that all policies were trained from: a Hugging Face folder, gs://, s3:// or file://.",
        ),
    ] = "",
    policies: Annotated[
        list[str] | None,
        typer.Option(
            "--policy", metavar="DIR|URI", show_default=False, help="A policy to merge; give it once for each."
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option("--out", metavar="DIR|URI", show_default=False, help="Where the result goes: new, or empty."),
    ] = "",
    merged_out: Annotated[
        str,
        typer.Option(
            "--merged-out",
            metavar="DIR|URI",
            show_default=False,
            help="Write the merged policy (LITI rate 1) too, from the same pass.",
        ),
    ] = "",
    liti_rate: Annotated[
        str,
        typer.Option(
            "--liti-rate", metavar="RATE", help="The result is (1 - RATE) init + RATE merged; 1 is the merged policy."
        ),
    ] = "1",
    order: Annotated[
        SlerpOrder, typer.Option("--order", help="How more than two policies are combined.")
    ] = SlerpOrder.PAPER,
    granularity: Annotated[
        Granularity, typer.Option("--granularity", help="What one angle and its coefficients are for.")
    ] = Granularity.LAYER,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="How the weights are stored.")] = Dtype.FLOAT32,
    max_shard_size: Annotated[
        str, typer.Option("--max-shard-size", metavar="SIZE", help="A weight file is at most so large.")
    ] = "4GiB",
    memory: Annotated[
        str,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Memory of the whole merge; groups that do not fit are read twice, in parts.",
        ),
    ] = "1GiB",
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="FILE",
            show_default=False,
            help="A mergekit recipe in place of --init, --policy and how: slerp, nuslerp or linear.",
        ),
    ] = "",
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Only check the inputs and show the plan.")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Merge policies that were trained from one init: SLERP of their task vectors, then LITI toward the init.

    A streaming pass over the weights: memory does not grow with the model. Nothing is overwritten.
    """
    from dataclasses import replace

    from warpctl.cli.merge_request import merge_request
    from warpctl.cli.merge_run import run_merge

    found = None
    if recipe:
        from warpctl.cli.merge_recipe import read_recipe, refuse_beside_recipe

        refuse_beside_recipe(
            {
                "--init": bool(init),
                "--policy": bool(policies),
                "--liti-rate": liti_rate != "1",
                "--order": order is not SlerpOrder.PAPER,
                "--granularity": granularity is not Granularity.LAYER,
                "--dtype": dtype is not Dtype.FLOAT32,
                "--merged-out": bool(merged_out),
            }
        )
        found = read_recipe(recipe)
        init, policies, dtype = found.init, list(found.policies), Dtype(found.dtype)
        granularity = Granularity.LAYER if found.linear_weights else Granularity.TENSOR
    request = merge_request(
        init=init,
        policies=policies or [],
        out=out,
        merged_out=merged_out,
        liti_rate=liti_rate,
        order=order,
        granularity=granularity,
        dtype=dtype.value,
        max_shard_size=max_shard_size,
        memory=memory,
    )
    if found:
        request = replace(
            request,
            linear_weights=found.linear_weights,
            slerp_rules=found.slerp_rules,
            slerp_of=found.slerp_of,
            num_layers=found.num_layers,
        )
    run_merge(request, output, is_dry=is_dry)
