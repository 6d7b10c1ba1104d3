"""Part a: a merge of two policies on a local disk beside the copy of the same bytes and beside mergekit. Part b: more policies."""

from __future__ import annotations

import shutil
from typing import Any

from tests.benchmarks.merge.architecture import LLAMA
from tests.benchmarks.merge.measure import Sample, in_turns, middle
from tests.benchmarks.merge.models import Models, models, require_space
from tests.benchmarks.merge.sides import (
    Settings,
    Stage,
    contestant,
    copy_command,
    has_tool,
    mergekit_command,
    says_cold,
    tool_command,
)

START_SCALE = 1e-5
"""A model of some thousand parameters: what is left is starting the program."""
STAGE_COPIES = 4
"""Two float32 models are four times the bytes of a bfloat16 one."""
MEMBERS = (2, 4, 8)
MEMBERS_SCALE = 0.25
"""Of the model of part a."""


def two_policies(settings: Settings) -> dict[str, Any]:
    """Copy, tool, stage and mergekit in turns; figures by name of contestant, and the ratios."""
    architecture = LLAMA.scaled(settings.scale)
    require_space(settings.folder, (3 + STAGE_COPIES) * architecture.num_bytes, "part a")
    started = starts(settings)
    with models(architecture, settings.folder / "llama", num_policies=2, keep=settings.keep) as made:
        print(
            f"\na. {architecture.num_parameters / 1e9:.3f} B parameters, bfloat16, 2 policies: {made.num_bytes / 1e9:.2f} GB read; "
            f"cold: {says_cold(settings)}",
            flush=True,
        )
        samples = in_turns(_contestants(settings, made), settings.repeat)
    print("  on a model of some thousand parameters: " + ", ".join(f"{name} {s:.2f} s" for name, s in started.items()))
    return _figures({name: middle(of) for name, of in samples.items()}, made) | {"start_s": started}


def starts(settings: Settings) -> dict[str, float]:
    """Seconds of each program on a tiny model, the second time: the first one compiles kernels and bytecode."""
    with models(LLAMA.scaled(START_SCALE), settings.folder / "start", num_policies=2) as tiny:
        warm = [one for one in _contestants(settings, tiny) if one.name.endswith(", warm") and "copy" not in one.name]
        samples = in_turns(warm, 2)
    shutil.rmtree(settings.folder / "store")
    return {name.removesuffix(", warm"): round(of[1].ended, 2) for name, of in samples.items()}


def _contestants(settings: Settings, made: Models) -> list[Any]:
    store = settings.folder / "store"
    stage = Stage(str(store), made)
    merges = store / "stages" / "merge"
    chosen = []
    for is_cold in (True, False):

        def add(name: str, command: Any, output: Any = None, *, is_cold: bool = is_cold) -> None:
            chosen.append(contestant(name, settings, made, command, is_cold=is_cold, output=output))

        add("copy", lambda output: copy_command(made, output))
        if has_tool():
            add("tool", lambda output: tool_command(made.init, made.policies, output))
        add("copy, two float32", lambda output: copy_command(made, output, copies=STAGE_COPIES))
        add("stage, two float32", lambda _: stage.command(), merges)
    if settings.mergekit:
        python = settings.mergekit
        chosen.append(
            contestant("mergekit", settings, made, lambda output: mergekit_command(python, made, output), is_cold=False)
        )
    return chosen


def _figures(rows: dict[str, Sample], made: Models) -> dict[str, Any]:
    print(f"  {'':<26}{'ended, s':>10}{'on disk, s':>12}{'cpu-s':>8}{'peak MiB':>10}{'over copy':>11}")
    ours = "tool" if has_tool() else "stage, two float32"
    over: dict[str, float] = {}
    for name, row in rows.items():
        what, _, cache = name.rpartition(", ")
        floor = rows[f"copy, two float32, {cache}" if "float32" in what else f"copy, {cache}"]
        over[name] = row.synced / floor.synced
        print(
            f"  {name:<26}{row.ended:>10.2f}{row.synced:>12.2f}{row.cpu:>8.2f}{row.peak_mib:>10.0f}{over[name]:>11.2f}"
        )
    mergekit = rows.get("mergekit, warm")
    return {
        "ours": ours,
        "over_copy_cold": round(over[f"{ours}, cold"], 3),
        "over_copy_warm": round(over[f"{ours}, warm"], 3),
        "mergekit_over_ours": round(mergekit.synced / rows[f"{ours}, warm"].synced, 2) if mergekit else None,
        "peak_rss_mib": round(max(rows[f"{ours}, {cache}"].peak_mib for cache in ("cold", "warm"))),
        "stage_over_copy_cold": round(over["stage, two float32, cold"], 3),
        "stage_over_copy_warm": round(over["stage, two float32, warm"], 3),
        "read_gb": round(made.num_bytes / 1e9, 3),
    }


def more_policies(settings: Settings) -> dict[str, Any]:
    """Seconds for each GB read, with 2, 4 and 8 policies; process start taken off, and not."""
    architecture = LLAMA.scaled(settings.scale * MEMBERS_SCALE)
    require_space(settings.folder, (1 + max(MEMBERS) + STAGE_COPIES) * architecture.num_bytes, "part b")
    tiny = LLAMA.scaled(START_SCALE)
    with (
        models(architecture, settings.folder / "members", num_policies=max(MEMBERS), keep=settings.keep) as made,
        models(tiny, settings.folder / "start", num_policies=2) as start,
    ):
        of = {m: Models(architecture, made.folder, made.init, made.policies[:m]) for m in MEMBERS}
        named = {f"M = {m}": each for m, each in of.items()} | {"start": start}
        samples = in_turns([_merge_of(name, each, settings) for name, each in named.items()], settings.repeat)
    rows = {name.removesuffix(", warm"): middle(each) for name, each in samples.items()}
    print(
        f"\nb. {architecture.num_parameters / 1e9:.3f} B parameters, warm; start of the program: {rows['start'].synced:.2f} s"
    )
    print(
        f"  {'':<8}{'read, GB':>10}{'on disk, s':>12}{'s/GB':>8}{'s/GB without start':>20}{'cpu-s/GB':>10}{'peak MiB':>10}"
    )
    figures = {}
    for m, each in of.items():
        row, gigabytes = rows[f"M = {m}"], each.num_bytes / 1e9
        bare = (row.synced - rows["start"].synced) / gigabytes
        figures[str(m)] = round(bare, 3)
        print(
            f"  M = {m:<4}{gigabytes:>10.2f}{row.synced:>12.2f}{row.synced / gigabytes:>8.2f}{bare:>20.2f}"
            f"{(row.cpu - rows['start'].cpu) / gigabytes:>10.2f}{row.peak_mib:>10.0f}"
        )
    return {"s_per_gb_read": figures}


def _merge_of(name: str, made: Models, settings: Settings) -> Any:
    if has_tool():
        return contestant(
            name, settings, made, lambda output: tool_command(made.init, made.policies, output), is_cold=False
        )
    store = settings.folder / "stores" / name.replace(" ", "")
    stage = Stage(str(store), made)
    return contestant(name, settings, made, lambda _: stage.command(), is_cold=False, output=store / "stages" / "merge")
