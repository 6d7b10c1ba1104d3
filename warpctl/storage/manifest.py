"""The manifest: what a committed stage consists of, down to the digest of each 16 MiB of each file.

It is the content of committed.json. Its own digest pins an artifact (stages name their inputs by it, and it names its
parents by theirs: a Merkle chain); its content digest says whether two artifacts hold the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Self

from blake3 import blake3
from pydantic import ConfigDict, Field, ValidationError

from warpctl.artifacts import LAYOUT_VERSION
from warpctl.errors import CorruptError, InputError, NumericsError
from warpctl.spec.base import SpecModel
from warpctl.storage.chunk_hasher import CHUNK_BYTES


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8; NaN and Infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """blake3 as 64 hex digits."""
    return blake3(data).hexdigest()


class FileEntry(SpecModel):
    """One file of an artifact."""

    name: str
    """Logical name within the artifact, such as merged/config.json."""
    path: str
    """Exact path in the store; an earlier attempt's file may be used again, so it is not always below this attempt."""
    size: int = Field(ge=0)
    """Bytes."""
    chunks: tuple[str, ...]
    """blake3 of each CHUNK_BYTES of the file, the last one shorter; none for an empty file."""


class Parent(SpecModel):
    """An artifact that this one was made from."""

    role: str
    kind: str
    key: str
    manifest_digest: str
    """The very artifact that was read."""
    content_digest: str = ""
    """Its bytes: equal for an artifact that was lost and made again bit by bit."""


class Manifest(SpecModel):
    """A committed artifact. Fields added later must be left out of the bytes at their default, so digests stay."""

    model_config = ConfigDict(ser_json_inf_nan="constants")  # so that canonical_json sees NaN and refuses it, not null

    layout_version: int = LAYOUT_VERSION
    kind: str
    key: str
    attempt_id: str
    stage_id: str
    chunk_bytes: int = Field(default=CHUNK_BYTES, gt=0)
    files: tuple[FileEntry, ...]
    parents: tuple[Parent, ...] = ()
    content_digest: str
    """Over names, sizes and chunks alone: equal for equal content, whatever attempt, URI or time."""
    versions: dict[str, str] = Field(default_factory=dict)
    started_at: str
    ended_at: str
    gpu_seconds: float = 0.0
    outcome: dict[str, Any] = Field(default_factory=dict)
    """What the stage wants to say about itself: numbers for status and report."""

    def to_bytes(self) -> bytes:
        """Canonical JSON: the content of committed.json. NumericsError when the outcome holds NaN or infinity."""
        try:
            return canonical_json(self.model_dump(mode="json", by_alias=True))
        except ValueError as error:
            raise NumericsError(
                f"{self.stage_id}: its outcome holds a number that is not finite: {self.outcome}",
                hint="the computation diverged; see the stage's log and metrics",
            ) from error

    @property
    def digest(self) -> str:
        """blake3 of the canonical bytes: the name of this artifact."""
        return digest_of(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes, *, source: str = "manifest") -> Self:
        """Parse; CorruptError when it is no manifest, InputError when a newer warpctl wrote it."""
        try:
            value = json.loads(data)
            version = value["layoutVersion"]
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptError(f"{source} is not a manifest: {error!r}", hint=_DAMAGED) from error
        if version != LAYOUT_VERSION:
            raise InputError(
                f"{source} has layout version {version}, this warpctl reads {LAYOUT_VERSION}",
                hint="use the warpctl that wrote this store, or a newer one",
            )
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise CorruptError(f"{source} is not a manifest: {error}", hint=_DAMAGED) from error


_DAMAGED = "the object was altered after it was published; delete the stage's folder to compute it again"


def content_digest(files: Iterable[FileEntry]) -> str:
    """blake3 over the canonical JSON of the sorted [name, size, chunks]."""
    return digest_of(canonical_json(sorted([file.name, file.size, list(file.chunks)] for file in files)))
