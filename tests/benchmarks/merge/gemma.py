"""Part c: Gemma-7B's shapes, two policies, in sparse files: does memory stay bounded, and at what rate do the bytes go by?

Inputs take no disk: all but the first rows of each tensor are holes. The output does, so as many layers are merged as there
is room for; all of them need 17 GB with the tool.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.benchmarks.merge.architecture import GEMMA, Architecture
from tests.benchmarks.merge.measure import in_turns, middle
from tests.benchmarks.merge.models import free_bytes, models, require_space
from tests.benchmarks.merge.sides import Settings, Stage, contestant, copy_command, has_tool, tool_command

MOST_BYTES = 20 * 10**9
"""Of disk that this part takes."""
FLOOR_BYTES = 4 * GEMMA.num_bytes
"""Three models read and one written: 68.3 GB."""


def gemma_7b(settings: Settings) -> dict[str, Any]:
    """Peak memory and rate, once."""
    copies = 1 if has_tool() else 4
    whole = GEMMA.scaled(settings.scale)
    architecture = dataclasses.replace(whole, layers=settings.layers or layers_that_fit(whole, settings, copies))
    require_space(settings.folder, copies * architecture.num_bytes, "part c")
    with models(architecture, settings.folder / "gemma", num_policies=2, is_sparse=True, keep=settings.keep) as made:
        if has_tool():
            ours = contestant(
                "tool", settings, made, lambda out: tool_command(made.init, made.policies, out), is_cold=False
            )
        else:
            store = settings.folder / "gemma-store"
            stage = Stage(str(store), made)
            ours = contestant(
                "stage", settings, made, lambda _: stage.command(), is_cold=False, output=store / "stages" / "merge"
            )
        floor = contestant("copy", settings, made, lambda out: copy_command(made, out, copies=copies), is_cold=False)
        samples = in_turns([floor, ours], 1)
    copy, merge = (middle(samples[one.name]) for one in (floor, ours))
    num_bytes = made.num_bytes + copies * architecture.num_bytes
    rate, floor_rate = (num_bytes / row.synced / 1e9 for row in (merge, copy))
    print(
        f"\nc. Gemma-7B's shapes, {architecture.layers} of 28 layers, {architecture.num_parameters / 1e9:.2f} B parameters, sparse inputs, "
        f"{copies * architecture.num_bytes / 1e9:.1f} GB written\n"
        f"  {ours.name}: {merge.synced:.1f} s, {rate:.2f} GB/s, {merge.cpu:.1f} cpu-s, peak {merge.peak_mib:.0f} MiB\n"
        f"  copy: {copy.synced:.1f} s, {floor_rate:.2f} GB/s\n"
        f"  projected for {FLOOR_BYTES / 1e9:.1f} GB: {FLOOR_BYTES / 1e9 / rate:.0f} s, copy {FLOOR_BYTES / 1e9 / floor_rate:.0f} s "
        "(holes are read faster than a disk)",
        flush=True,
    )
    return {
        "gemma7b_peak_rss_mib": round(merge.peak_mib),
        "gemma7b_layers": architecture.layers,
        "gemma7b_gb_per_s": float(f"{rate:.3g}"),
        "gemma7b_over_copy": round(merge.synced / copy.synced, 3),
    }


def layers_that_fit(whole: Architecture, settings: Settings, copies: int) -> int:
    """The most layers whose output has room."""
    room = min(MOST_BYTES, free_bytes(settings.folder))
    for layers in range(whole.layers, 1, -1):
        if copies * dataclasses.replace(whole, layers=layers).num_bytes <= room:
            return layers
    return 1
