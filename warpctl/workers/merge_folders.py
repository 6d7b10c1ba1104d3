"""`warpctl merge`: the merge of the merge stage on plain Hugging Face folders, which no run made and none will read.

merge_plan.py plans, here it streams. Nothing of it is resumed: a second run starts anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from warpctl.errors import InputError, NumericsError, WarpctlError
from warpctl.merging.diagnostics import GroupDiagnostics
from warpctl.merging.product import Product
from warpctl.merging.record import merge_record
from warpctl.storage.checkpoint_writer import CheckpointWriter, WritersSideBySide
from warpctl.storage.headers import STORED_AS
from warpctl.storage.new_folder import NewFolder
from warpctl.workers.merge_linear import merge_linear
from warpctl.workers.merge_memory import give_back_at_once
from warpctl.workers.merge_plan import MergePlan, MergeRequest
from warpctl.workers.merge_weights import merge_weights

Stored = npt.NDArray[Any]


def merge_folders(plan: MergePlan, *, on_group: Callable[[int, int], None]) -> list[GroupDiagnostics]:
    """Write the targets. Left by an exception, also Ctrl-C, it has removed what it wrote, or says what it could not."""
    give_back_at_once()
    try:
        for target in plan.targets:
            target.begin([*plan.copied, *(shard.file for shard in _writer(plan, target).shards)])
        diagnostics = _write(plan, on_group)
    except BaseException as error:
        kept = [said for target in plan.targets if (said := target.discard())]
        if kept:
            raise WarpctlError(
                f"{str(error) or 'interrupted'}; and what was written could not be removed: {kept[0]}",
                hint="the same command starts anew in the same folder",
            ) from error
        if isinstance(error, NumericsError):
            # Of a run's hints one is about training, which nobody here has done.
            is_of_input = type(error) is NumericsError
            hint = "that checkpoint cannot be merged; take an earlier one" if is_of_input else error.hint
            raise InputError(error.message, hint=hint) from error
        raise
    finally:
        for folder in plan.folders:
            folder.close()
    return diagnostics


def _write(plan: MergePlan, on_group: Callable[[int, int], None]) -> list[GroupDiagnostics]:
    request, init = plan.request, plan.folders[0]
    for name in plan.copied:
        data = init.read(name)
        for target in plan.targets:
            target.write_file(name, data)
    with WritersSideBySide([_writer(plan, target) for target in plan.targets]) as writers:
        output = _Output(writers, request)
        if request.linear_weights:
            merge_linear(
                plan.sources,
                plan.groups,
                output,
                weights=request.linear_weights,
                on_group=on_group,
                memory_bytes=request.merging_bytes,
            )
            diagnostics = []
        else:
            diagnostics = merge_weights(
                plan.sources, plan.method, output, on_group=on_group, memory_bytes=request.merging_bytes
            )
    for folder in plan.folders:
        folder.check_unchanged()
    report = merge_report(plan, diagnostics)
    first = "average" if request.linear_weights else "slerp" if request.is_of_weights else "nextInit"
    for target, what in zip(plan.targets, (first, "mergedPolicy"), strict=False):
        target.finish({"holds": what, **report}, plan.config)
    return diagnostics


def merge_report(plan: MergePlan, diagnostics: Sequence[GroupDiagnostics]) -> dict[str, Any]:
    """merge.json: the request and what was seen; as that of the merge stage. An average has seen nothing."""
    tied_copies = list(plan.sources.tied_copies)
    seen = merge_record(diagnostics, tied_copies=tied_copies) if diagnostics else {"tiedCopies": tied_copies}
    return {**plan.request.to_json(), **seen}


class _Output:
    """Next init, and the merged policy if it is wanted; or an average, which is all that is merged."""

    def __init__(self, writers: WritersSideBySide, request: MergeRequest) -> None:
        self._writers = writers
        next_init, merged = (Product(what, STORED_AS[request.dtype]) for what in ("next-init", "merged"))
        self.wanted = (merged,) if request.linear_weights else (next_init, merged)[: 1 + bool(request.merged_out)]

    def needs(self, tensor: str) -> bool:  # noqa: ARG002 - nothing is resumed
        return True

    def append(self, which: int, tensor: str, values: Stored) -> None:
        self._writers.append(which, tensor, values)

    def save_state(self, diagnostics: Sequence[GroupDiagnostics]) -> None:
        """Nothing is resumed."""


def _writer(plan: MergePlan, target: NewFolder) -> CheckpointWriter:
    request = plan.request
    return CheckpointWriter(
        target,
        prefix="",
        specs=plan.sources.specs,
        dtype=STORED_AS[request.dtype],
        max_shard_bytes=request.max_shard_bytes,
    )
