"""wanted.json: what one run wants kept. The union over all runs is what garbage collection starts from.

A run writes it before it starts anything of a new generation, so a collection beside it sees its wishes first.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Self

from pydantic import ValidationError

from warpctl import artifacts
from warpctl.errors import UserError
from warpctl.spec.base import SpecModel
from warpctl.spec.stage_input import StageKind
from warpctl.storage.manifest import canonical_json
from warpctl.storage.store import Store


class Keep(StrEnum):
    """How much of a finished stage a run wants kept."""

    ARTIFACT = "Artifact"
    """Marker and files."""
    RECORD = "Record"
    """The marker and everything but the weights: what was made, from what, and how it went."""


class WantedStage(SpecModel):
    """One stage of a run, finished or not; all of an unfinished one is kept, its resume states too."""

    kind: StageKind
    key: str
    keep: Keep = Keep.ARTIFACT


class Wanted(SpecModel):
    """The roots of one run."""

    namespace: str
    name: str
    stages: tuple[WantedStage, ...] = ()
    points: tuple[str, ...] = ()
    """Keys of evaluated points that no wanted evaluation names."""
    written_at: str

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))

    @classmethod
    def from_bytes(cls, data: bytes, *, source: str) -> Self:
        """Parse; UserError when it cannot be, since nobody may guess what a run wants."""
        try:
            return cls.model_validate(json.loads(data))
        except (ValueError, ValidationError) as error:
            raise UserError(
                f"{source} cannot be read: {error}",
                hint="run that WarpRun again with this warpctl, which rewrites it, or delete it if the run is gone",
            ) from error


def write_wanted(store: Store, wanted: Wanted) -> None:
    """Say what this run wants, in place of what it wanted before."""
    store.write(artifacts.wanted(wanted.namespace, wanted.name), wanted.to_bytes())


def read_wanted(store: Store, namespace: str, name: str) -> Wanted | None:
    """What a run wants, None when it has not said; UserError when it cannot be read."""
    path = artifacts.wanted(namespace, name)
    data = store.read_or_none(path)
    return None if data is None else Wanted.from_bytes(data, source=store.uri(path))


def read_all_wanted(store: Store) -> tuple[Wanted, ...]:
    """What all runs of this store want; UserError when one of them cannot be read."""
    found = []
    for file in store.list(artifacts.RUNS):
        parts = file.path.split("/")
        if len(parts) == 4 and file.path == artifacts.wanted(parts[1], parts[2]):
            wanted = read_wanted(store, parts[1], parts[2])
            if wanted is not None:
                found.append(wanted)
    return tuple(found)
