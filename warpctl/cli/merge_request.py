"""From the options of `warpctl merge` to what is to be merged; every mistake in them is one clear line."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path

from warpctl.cli.sizes import parse_size
from warpctl.errors import UserError
from warpctl.spec.merge_method import Granularity, SlerpOrder
from warpctl.workers.merge_memory import least_memory_bytes
from warpctl.workers.merge_plan import MergeRequest
from warpctl.workers.merge_reading import MIB


def merge_request(
    *,
    init: str,
    policies: list[str],
    out: str,
    merged_out: str,
    liti_rate: str,
    order: SlerpOrder,
    granularity: Granularity,
    dtype: str,
    max_shard_size: str,
    memory: str,
) -> MergeRequest:
    """UserError names the option that cannot be accepted."""
    if not init:
        raise UserError(
            "--init is missing: SLERP merges task vectors, what each policy moved away from it",
            hint="give the checkpoint that all policies were trained from",
        )
    if not policies:
        raise UserError("--policy is missing: there is nothing to merge", hint="give it once for each policy")
    if not out:
        raise UserError("--out is missing", hint="name a new folder, or a prefix in gs:// or s3://")
    for uri in (init, *policies):
        _check_input(uri)
    return MergeRequest(
        init=init,
        policies=tuple(policies),
        out=out,
        merged_out=merged_out,
        liti_rate=_rate(liti_rate),
        order=order,
        granularity=granularity,
        dtype=dtype,
        max_shard_bytes=parse_size(max_shard_size, option="--max-shard-size"),
        memory_bytes=_memory(memory, num_inputs=1 + len(policies), targets=(out, merged_out)),
    )


def _rate(text: str) -> Decimal:
    try:
        rate = Decimal(text.strip())
    except InvalidOperation:
        rate = Decimal("NaN")
    if not (rate.is_finite() and 0 <= rate <= 1):
        raise UserError(
            f'--liti-rate must be in [0, 1], got "{text}"', hint="0 keeps the init, 1 keeps the merged policy"
        )
    return rate


def _memory(text: str, *, num_inputs: int, targets: tuple[str, ...]) -> int:
    num_bytes, least = parse_size(text, option="--memory"), least_memory_bytes(num_inputs, targets)
    if num_bytes < least:
        raise UserError(
            f"--memory {text} is too small: merging {num_inputs} checkpoints takes {least / MIB:g}MiB at the least",
            hint="give it that much or more; most of it is Python with its libraries, and what is kept of each checkpoint or sent to a bucket",
        )
    return num_bytes


def _check_input(uri: str) -> None:
    """What looks like a name on the hub is told apart from a folder that is not there."""
    name = uri.removeprefix("hf://")
    if uri.startswith("hf://") or ("://" not in uri and uri.count("/") == 1 and not _is_local(uri)):
        raise UserError(
            f"{uri} is not a folder here", hint=f"`hf download {name} --local-dir DIR` fetches it from the hub"
        )
    if "://" not in uri and Path(uri).expanduser().is_file():
        raise UserError(f"{uri} is a file", hint="name the folder that holds model.safetensors and config.json")


def _is_local(uri: str) -> bool:
    return uri.startswith(("/", ".", "~")) or Path(uri).exists()
