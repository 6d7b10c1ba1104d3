"""What a merge writes: the merged policy and the next init, side by side, resumable at shard boundaries.

When both files of a shard are complete, a small resume state is left with this attempt: which inputs were read (by the
digest of their manifests), the files so far, the diagnostics so far. Another attempt goes on from the newest state that was
made from the very same inputs; from any other it takes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt

from warpctl import artifacts
from warpctl.merging.diagnostics import GroupDiagnostics
from warpctl.merging.groups import Group
from warpctl.spec.stage_input import StageInput
from warpctl.storage.manifest import FileEntry
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store
from warpctl.storage.tensors import CheckpointWriter, TensorSpec
from warpctl.workers.merge_arithmetic import Product

MERGED = "merged/"
NEXT_INIT = "next-init/"
STATE = "merge.json"

Stored = npt.NDArray[Any]


class MergeOutput:
    """Two checkpoints of the same layout. Use it as a context manager, as CheckpointWriter."""

    wanted: tuple[Product, ...] = (Product("merged", "F32"), Product("next-init", "F32"))

    def __init__(
        self,
        store: Store,
        publication: Publication,
        stage_input: StageInput,
        *,
        specs: Sequence[TensorSpec],
        max_shard_bytes: int,
    ) -> None:
        self._store = store
        self._stage_input = stage_input
        state = _newest_state(store, stage_input)
        self._files: list[FileEntry] = [FileEntry.model_validate(entry) for entry in state.get("files", ())]
        self._finished = {group["group"]: GroupDiagnostics.from_json(group) for group in state.get("groups", ())}
        self.num_kept = len(self._files) // 2
        """Shards that an earlier attempt finished."""
        self._writers = [
            CheckpointWriter(
                publication, prefix=prefix, specs=specs, max_shard_bytes=max_shard_bytes, num_finished=self.num_kept
            )
            for prefix in (MERGED, NEXT_INIT)
        ]
        for entry in self._files:
            publication.adopt(entry)
        shards = self._writers[0].shards
        self._kept_tensors = {tensor.name for shard in shards[: self.num_kept] for tensor in shard.tensors}
        self._stack = ExitStack()

    def needs(self, tensor: str) -> bool:
        """Whether this tensor is still to be written."""
        return tensor not in self._kept_tensors

    def finished(self, group: Group) -> GroupDiagnostics | None:
        """Diagnostics of a group of which nothing is left to write, None for another."""
        return None if any(self.needs(name) for name in group.tensors) else self._finished.get(group.name)

    def append(self, tensor: str, values: Sequence[Stored]) -> None:
        """The next values of a tensor, an array for each of `wanted`; tensors come in sorted order."""
        for writer, values_N in zip(self._writers, values, strict=True):
            writer.append(tensor, values_N)

    def save_state(self, diagnostics: Sequence[GroupDiagnostics]) -> None:
        """Leave a resume state if shards were completed since the last one. Call it after each group."""
        first, last = len(self._files) // 2, min(writer.num_closed for writer in self._writers)
        if first == last:
            return
        for shard in self._writers[0].shards[first:last]:
            self._files += [self._receipt(prefix + shard.file) for prefix in (MERGED, NEXT_INIT)]
        state = {
            "inputs": _inputs(self._stage_input),
            "files": [entry.model_dump(mode="json", by_alias=True) for entry in self._files],
            "groups": [group.to_json() for group in diagnostics],
        }
        stage = self._stage_input
        folder = artifacts.resume(stage.kind, stage.key, stage.attempt_id, last)
        self._store.write(f"{folder}/{STATE}", json.dumps(state).encode())

    def _receipt(self, name: str) -> FileEntry:
        stage = self._stage_input
        receipt = artifacts.receipt(stage.kind, stage.key, stage.attempt_id, name)
        return FileEntry.model_validate_json(self._store.read(receipt))

    def __enter__(self) -> Self:
        for writer in self._writers:
            self._stack.enter_context(writer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def _inputs(stage_input: StageInput) -> dict[str, str]:
    return {artifact.role: artifact.manifest_digest for artifact in stage_input.inputs}


def _newest_state(store: Store, stage: StageInput) -> dict[str, Any]:
    """The state with the most shards of any attempt that read the same inputs and whose files are all there; or {}."""
    found = [file.path for file in store.list(artifacts.attempts(stage.kind, stage.key))]
    states = [path for path in found if "/resume/" in path and path.endswith(f"/{STATE}")]
    for path in sorted(states, key=lambda path: path.split("/")[-2], reverse=True):
        try:
            state: dict[str, Any] = json.loads(store.read(path))
            entries = [FileEntry.model_validate(entry) for entry in state["files"]]
            is_ours = state["inputs"] == _inputs(stage)
        except (ValueError, KeyError, TypeError, FileNotFoundError):
            continue  # not worth a failure: the shards are simply made again
        if is_ours and all((stat := store.stat(entry.path)) and stat.size == entry.size for entry in entries):
            return state
    return {}
