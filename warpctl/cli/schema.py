"""`warpctl schema`: what a WarpRun may hold."""

from __future__ import annotations

from typing import Annotated

import typer

from warpctl.cli.terminal import next_steps, result


def schema(
    field: Annotated[
        str, typer.Argument(metavar="FIELD", help="Only this field and those below it, such as spec.training.")
    ] = "",
    is_json: Annotated[bool, typer.Option("--json", help="The whole schema as JSON Schema, for editors.")] = False,
    is_crd: Annotated[
        bool, typer.Option("--crd", help="The CustomResourceDefinition, for `kubectl apply -f -`.")
    ] = False,
) -> None:
    """Print the fields of a WarpRun: kind, range, default and meaning."""
    if is_crd:
        from warpctl.spec.crd import crd_yaml

        result(crd_yaml().rstrip("\n"))
        return
    if is_json:
        from warpctl.cli.output import json_text
        from warpctl.spec.warp_run import WarpRun

        result(json_text(WarpRun.model_json_schema(by_alias=True)))
        return
    from warpctl.errors import UserError
    from warpctl.spec.fields import fields

    shown = [each for path, each in fields().items() if _is_at_or_below(path, field)]
    if not shown:
        raise UserError(f"a WarpRun has no field {field}", hint="`warpctl schema` lists them all")
    for each in shown:
        default = "required" if each.default is None else f"default {each.default}"
        facts = ", ".join(fact for fact in (each.kind, _values(each.range, each.allowed), default) if fact)
        result(f"{each.path}  ({facts})")
        if each.doc:
            result(f"    {each.doc}")
    next_steps(
        "warpctl validate SPEC",
        "warpctl schema --json > warprun.schema.json  # for your editor",
        "warpctl schema --crd | kubectl apply --server-side -f -",
    )


def _is_at_or_below(path: str, field: str) -> bool:
    return not field or path == field or path.startswith((f"{field}.", f"{field}[]."))


def _values(interval: str, allowed: tuple[str, ...]) -> str:
    return " | ".join(allowed) if allowed else f"in {interval}" if interval else ""
