"""`warpctl merge` from its plan to its last word."""

from __future__ import annotations

import signal
from typing import Any

from warpctl.cli.durations import duration_text
from warpctl.cli.merge_progress import MergeProgress
from warpctl.cli.merge_text import groups_text, plan_text, summary_text
from warpctl.cli.output import OutputFormat, emit
from warpctl.cli.terminal import next_steps, note, warn
from warpctl.errors import FinalError, UserError
from warpctl.storage.new_folder import PATIENCE_SECONDS
from warpctl.workers.merge_folders import merge_folders, merge_report
from warpctl.workers.merge_plan import MergePlan, MergeRequest, plan_merge


def run_merge(request: MergeRequest, output: OutputFormat, *, is_dry: bool) -> None:
    """Plan, merge, tell. UserError for every input that cannot be used: here it is the user's, not a stage's."""
    try:
        _run(request, output, is_dry=is_dry)
    except FinalError as error:
        raise UserError(error.message, hint=error.hint) from error


def _run(request: MergeRequest, output: OutputFormat, *, is_dry: bool) -> None:
    progress = MergeProgress()
    plan = plan_merge(request, on_bytes=progress.on_bytes)
    if is_dry:
        emit(
            output,
            document={**request.to_json(), "isDryRun": True, "plan": plan.to_json()},
            names=[target.uri for target in plan.targets],
            tables=lambda: f"{plan_text(plan)}\n\nDry run: nothing was written.",
        )
        return
    note(plan_text(plan))
    for target in plan.targets:
        if target.unfinished:
            unless = "" if target.local_path() else f", unless it goes on within {PATIENCE_SECONDS:.0f} s"
            warn(f"{target.uri} holds an unfinished merge, which is written anew{unless}")
    for uri in sorted({uri for uri in request.policies if request.policies.count(uri) > 1}):
        warn(f"policy {uri} is given more than once and counts as often")
    progress.start(plan.read_bytes + plan.write_bytes)
    stopped = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with progress:
            diagnostics = merge_folders(plan, on_group=progress.on_group)
    except KeyboardInterrupt:
        note("interrupted: what was written is removed; the same command starts anew")
        raise
    finally:
        signal.signal(signal.SIGTERM, stopped)
    seconds, speed = progress.seconds, progress.speed
    document: dict[str, Any] = {
        **merge_report(plan, diagnostics),
        "plan": plan.to_json(),
        "seconds": round(seconds, 3),
        "bytesPerSecond": round(speed),
    }
    for number, uri in enumerate(request.policies):
        if diagnostics and not request.is_of_weights and not any(group.norms[number] for group in diagnostics):
            warn(f"policy {uri} is the init: it did not move, and draws the result toward it")

    def tables() -> str:
        summary = summary_text(plan, diagnostics, seconds=duration_text(seconds), speed=speed)
        is_wide = output is OutputFormat.WIDE
        return f"{groups_text(diagnostics, is_wide=is_wide)}\n\n{summary}" if diagnostics else summary

    note("")
    emit(output, document=document, names=[target.uri for target in plan.targets], tables=tables)
    if output.is_for_people:
        _tell_next(plan)


def _tell_next(plan: MergePlan) -> None:
    out = plan.request.out
    if "://" not in out:
        next_steps(f"python -c 'from transformers import AutoModelForCausalLM as M; M.from_pretrained(\"{out}\")'")
    elif out.startswith("gs://"):
        next_steps(f"gcloud storage cp -r {out} .")
    elif out.startswith("s3://"):
        next_steps(f"aws s3 cp --recursive {out} .")
