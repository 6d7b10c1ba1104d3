"""What a merge writes: merged policy, next init, and a copy for serving if it is wanted; side by side, resumable at shard boundaries.

When all files of a shard are complete, a small resume state is left with this attempt: which inputs were read (by the
digest of their manifests), the files so far, the diagnostics so far. Another attempt, or another node, takes what was made
from the very same inputs; from any other it takes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt

from warpctl import artifacts
from warpctl.merging.diagnostics import GroupDiagnostics
from warpctl.merging.groups import Group
from warpctl.merging.product import Product
from warpctl.spec.stage_input import MergeTask, StageInput
from warpctl.spec.training import ServingCopy
from warpctl.storage.checkpoint_writer import CheckpointWriter, WritersSideBySide
from warpctl.storage.headers import DTYPES, TensorSpec, split_into_shards
from warpctl.storage.manifest import FileEntry, digest_of
from warpctl.storage.publish import Publication
from warpctl.storage.store import Store

MERGED = "merged/"
NEXT_INIT = "next-init/"
SERVING = "serving/"
STATE = "merge.json"

Stored = npt.NDArray[Any]


@dataclass(frozen=True)
class Published:
    """One policy that a merge publishes: where it lies, and what it is."""

    prefix: str
    product: Product

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return DTYPES[self.product.dtype].itemsize


def published_by(task: MergeTask) -> tuple[Published, ...]:
    """What this merge publishes, in the order in which its kernels give it."""
    always = Published(MERGED, Product("merged", "F32")), Published(NEXT_INIT, Product("next-init", "F32"))
    serving = (Published(SERVING, Product("merged", "BF16")),)
    return always + serving if task.serving_copy is ServingCopy.BFLOAT16 else always


class MergeOutput:
    """Checkpoints that are cut at the same tensors, so that their shards have the same names. Use it as a context manager, as CheckpointWriter.

    Of several nodes each writes shards of its own: node `rank` of `num_nodes` every one whose number is its rank, modulo.
    They do not speak with each other; what one has finished, the others see in its resume state.
    """

    def __init__(
        self,
        store: Store,
        publication: Publication,
        stage_input: StageInput,
        policies: Sequence[Published],
        *,
        specs: Sequence[TensorSpec],
        max_shard_bytes: int,
        rank: int = 0,
        num_nodes: int = 1,
    ) -> None:
        self.wanted = tuple(policy.product for policy in policies)
        self._prefixes = tuple(policy.prefix for policy in policies)
        self._store = store
        self._stage_input = stage_input
        self._publication = publication
        self._shards = split_into_shards(specs, max_shard_bytes=max_shard_bytes)
        self._layout = digest_of(b"".join(shard.head for shard in self._shards))
        kept = self._finished()
        mine = {shard.file for shard in self._shards[rank::num_nodes] if not kept.has_shard(shard.file)}
        self.num_kept = sum(kept.has_shard(shard.file) for shard in self._shards)
        """Shards that earlier attempts, or other nodes, finished."""
        others = {shard.file for shard in self._shards} - mine
        writers = [
            CheckpointWriter(
                publication,
                prefix=policy.prefix,
                specs=specs,
                dtype=policy.product.dtype,
                max_shard_bytes=max_shard_bytes * policy.itemsize // DTYPES["F32"].itemsize,
                others=others,
            )
            for policy in policies
        ]
        self._writers = WritersSideBySide(writers)
        self._needed = {tensor.name for shard in self._shards if shard.file in mine for tensor in shard.tensors}
        self._num_saved = 0

    def needs(self, tensor: str) -> bool:
        """Whether this tensor is still to be written, by this node."""
        return tensor in self._needed

    def append(self, which: int, tensor: str, values: Stored) -> None:
        """The next values of a tensor, for one of `wanted`; tensors come in sorted order."""
        self._writers.append(which, tensor, values)

    def save_state(self, diagnostics: Sequence[GroupDiagnostics]) -> None:
        """Leave a resume state if shards were completed since the last one. Call it after each part, and at the end."""
        closed = self._writers.closed
        if len(closed) == self._num_saved:
            return
        self._num_saved = len(closed)
        entries = [self._receipt(prefix + file) for file in closed for prefix in self._prefixes]
        state = {
            "inputs": _inputs(self._stage_input),
            "layout": self._layout,
            "files": [entry.model_dump(mode="json", by_alias=True) for entry in entries],
            "groups": [group.to_json() for group in diagnostics],
        }
        stage = self._stage_input
        folder = artifacts.resume(stage.kind, stage.key, stage.attempt_id, len(closed))
        self._store.write(f"{folder}/{STATE}", json.dumps(state).encode())

    def whole(self, groups: Sequence[Group]) -> list[GroupDiagnostics] | None:
        """Take all shards, whoever wrote them, into the publication; None while another node has some left."""
        finished = self._finished()
        if not all(finished.has_shard(shard.file) for shard in self._shards):
            return None
        own = set(self._writers.closed)
        for shard in self._shards:
            if shard.file not in own:
                for prefix in self._prefixes:
                    self._publication.adopt(finished.files[prefix + shard.file])
        return [finished.groups[group.name] for group in groups]

    def _finished(self) -> _Finished:
        return _Finished.load(self._store, self._stage_input, self._layout, self._prefixes)

    def _receipt(self, name: str) -> FileEntry:
        stage = self._stage_input
        receipt = artifacts.receipt(stage.kind, stage.key, stage.attempt_id, name)
        return FileEntry.model_validate_json(self._store.read(receipt))

    def __enter__(self) -> Self:
        self._writers.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writers.__exit__(kind, error, trace)


def _inputs(stage_input: StageInput) -> dict[str, str]:
    return {artifact.role: artifact.manifest_digest for artifact in stage_input.inputs}


@dataclass(frozen=True)
class _Finished:
    """What all attempts that read the same inputs have left: files that are all there, diagnostics of groups."""

    files: dict[str, FileEntry]
    groups: dict[str, GroupDiagnostics]
    prefixes: tuple[str, ...]

    def has_shard(self, file: str) -> bool:
        return all(prefix + file in self.files for prefix in self.prefixes)

    @classmethod
    def load(cls, store: Store, stage: StageInput, layout: str, prefixes: tuple[str, ...]) -> Self:
        """`layout` is a digest of the heads of all shards: files of the same names may hold other tensors."""
        files: dict[str, FileEntry] = {}
        groups: dict[str, GroupDiagnostics] = {}
        for path in _newest_states(store, stage):
            try:
                state: dict[str, Any] = json.loads(store.read(path))
                entries = [FileEntry.model_validate(entry) for entry in state["files"]]
                found = [GroupDiagnostics.from_json(group) for group in state["groups"]]
                is_ours = (state["inputs"], state["layout"]) == (_inputs(stage), layout)
            except (ValueError, KeyError, TypeError, FileNotFoundError):
                continue  # not worth a failure: the shards are simply made again
            if is_ours and all((stat := store.stat(entry.path)) and stat.size == entry.size for entry in entries):
                files |= {entry.name: entry for entry in entries}
                groups |= {group.group: group for group in found}
        return cls(files, groups, prefixes)


def _newest_states(store: Store, stage: StageInput) -> list[str]:
    """The last state of each attempt: it has all that the earlier ones have."""
    found = [file.path for file in store.list(artifacts.attempts(stage.kind, stage.key))]
    states = sorted(path for path in found if "/resume/" in path and path.endswith(f"/{STATE}"))
    return list({path.split("/resume/")[0]: path for path in states}.values())
