"""Garbage collection: mark from every run's wanted.json, sweep what nothing marks and what is old enough.

    what                                                  goes
    a stage that nobody wants, marker or not              whole, when its newest file is older than the age floor
    a wanted stage without a marker                       never: its resume states and receipts are work done
    a wanted stage with a marker:
      the marker, files that the manifest names           never (Keep.ARTIFACT); weights after the floor (Keep.RECORD)
      resume states of the attempt that won               at once: nothing starts from them again
      losing attempts, files the manifest does not name   after the floor
    points that no kept evaluation names                  after the floor, unless a wanted evaluation is unfinished
    leftovers of probes                                   after the floor
    leftovers of unfinished writes                        after the floor, unless a wanted stage has no marker yet

A manifest may name files of another attempt; whatever a kept manifest names stays. `plan_gc` only looks, `sweep` deletes,
and looks again before each stage: a run that came to want the stage in the meantime keeps it. The marker goes first and
receipts next, so a stage that loses its files is no longer finished and nobody builds on them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Final

from warpctl import artifacts
from warpctl.errors import CorruptError, UserError
from warpctl.spec.stage_input import StageKind
from warpctl.storage.file_names import WEIGHTS
from warpctl.storage.manifest import Manifest
from warpctl.storage.store import FileStat, Store
from warpctl.storage.wanted import Keep, Wanted, read_all_wanted

DEFAULT_MIN_AGE: Final = timedelta(days=1)

StageName = tuple[str, str]
"""Kind and key."""


class Why(StrEnum):
    """The reasons for deleting a file, as the user reads them."""

    UNWANTED = "no run wants this stage"
    RESUME = "resume state of a finished stage"
    LOSER = "of an attempt that did not win"
    UNNAMED = "not part of the artifact"
    RETENTION = "only the record of this stage is wanted, not its weights"
    POINT = "no evaluation names this point"
    PROBE = "left by a probe of the store"
    LEFTOVER = "left by a write that never ended"


@dataclass(frozen=True, slots=True)
class GcItem:
    """One file to delete, and why."""

    path: str
    size: int
    why: Why


@dataclass(frozen=True, slots=True)
class GcPlan:
    """Files to delete, in the order of deletion: stage by stage, the marker of each first."""

    items: tuple[GcItem, ...]

    @property
    def num_bytes(self) -> int:
        return sum(item.size for item in self.items)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep deleted, and the stages that it left alone because they changed after the plan was made."""

    num_files: int
    num_bytes: int
    skipped: tuple[StageName, ...]


@dataclass(frozen=True, slots=True)
class _StageFiles:
    """What lies in one stage's folder, and its manifest where it has one and somebody needs it read."""

    name: StageName
    files: tuple[FileStat, ...]

    @property
    def marker(self) -> str:
        return artifacts.marker(*self.name)

    @property
    def has_marker(self) -> bool:
        return any(file.path == self.marker for file in self.files)


def plan_gc(
    store: Store, *, now: datetime, min_age: timedelta = DEFAULT_MIN_AGE, only: Collection[StageName] | None = None
) -> GcPlan:
    """Decide what may go. `only` restricts it to these stages, as a run does with its own; other runs' wishes still count.

    UserError when a wanted.json or the marker of a kept stage cannot be read: then nobody knows what is reachable.
    """
    wanted = read_all_wanted(store)
    roots = _roots(wanted)
    stages = _stages(store, only)
    kept = [stage for stage in stages if stage.name in roots or not _is_old(stage.files, now, min_age)]
    manifests = {stage.name: _manifest(store, stage) for stage in kept if stage.has_marker}
    if only is not None:
        elsewhere = [_StageFiles(name, ()) for name in set(roots) - {stage.name for stage in stages}]
        finished = [stage for stage in elsewhere if store.stat(stage.marker) is not None]
        manifests |= {stage.name: _manifest(store, stage) for stage in finished}
    pinned = {file.path for name, manifest in manifests.items() if _keeps_files(name, roots) for file in manifest.files}
    items: list[GcItem] = []
    for stage in stages:
        manifest = manifests.get(stage.name)
        if stage.name not in roots:
            if stage not in kept:
                items += _delete(stage, stage.files, pinned, Why.UNWANTED)
        elif manifest is not None:
            items += _committed(stage, manifest, roots[stage.name], pinned, now=now, min_age=min_age)
    if only is None:
        evaluations = {name for name in {*roots, *manifests} if name[0] == StageKind.EVALUATE}
        if evaluations <= set(manifests):  # an unfinished evaluation may want any point
            named = {key for run in wanted for key in run.points}
            named |= {key for name in evaluations for key in _point_keys(store, manifests[name])}
            items += _points(store, named, now=now, min_age=min_age)
        items += _old(store.list(artifacts.PROBES), Why.PROBE, now, min_age)
        unfinished = set(roots) - {stage.name for stage in stages if stage.has_marker}
        leftovers = [file for file in store.leftovers("") if _stage_of(file.path) not in unfinished]
        items += _old(leftovers, Why.LEFTOVER, now, min_age)
    return GcPlan(tuple(items))


def sweep(store: Store, plan: GcPlan) -> Swept:
    """Delete what was planned, leaving out stages that came to be wanted or committed since."""
    deleted: list[GcItem] = []
    skipped: list[StageName] = []
    for (name, is_leftover), group in groupby(
        plan.items, key=lambda item: (_stage_of(item.path), item.why == Why.LEFTOVER)
    ):
        items = list(group)
        if name is not None and (_is_unfinished(store, name) if is_leftover else _has_changed(store, name, items)):
            skipped.append(name)
            continue
        for item in items:
            store.delete(item.path)
            deleted.append(item)
        if name is not None:
            store.delete_empty_folders(artifacts.stage(*name))
    return Swept(len(deleted), sum(item.size for item in deleted), tuple(skipped))


def _roots(wanted: Iterable[Wanted]) -> dict[StageName, Keep]:
    """How much of each wanted stage stays: the most that any run wants."""
    roots: dict[StageName, Keep] = {}
    for run in wanted:
        for stage in run.stages:
            name = (str(stage.kind), stage.key)
            if roots.get(name) != Keep.ARTIFACT:
                roots[name] = stage.keep
    return roots


def _keeps_files(name: StageName, roots: Mapping[StageName, Keep]) -> bool:
    """Unwanted stages that are too young to go keep their files as well."""
    return roots.get(name, Keep.ARTIFACT) == Keep.ARTIFACT


def _stages(store: Store, only: Collection[StageName] | None) -> list[_StageFiles]:
    if only is not None:
        listed = [(name, tuple(store.list(artifacts.stage(*name)))) for name in sorted(set(only))]
        return [_StageFiles(name, files) for name, files in listed if files]
    grouped: dict[StageName, list[FileStat]] = {}
    for file in store.list(artifacts.STAGES):
        name = _stage_of(file.path)
        if name is not None:
            grouped.setdefault(name, []).append(file)
    return [_StageFiles(name, tuple(files)) for name, files in sorted(grouped.items())]


def _stage_of(path: str) -> StageName | None:
    parts = path.split("/", 3)
    return (parts[1], parts[2]) if len(parts) == 4 and parts[0] == artifacts.STAGES else None


def _manifest(store: Store, stage: _StageFiles) -> Manifest:
    try:
        return Manifest.from_bytes(store.read(stage.marker), source=store.uri(stage.marker))
    except CorruptError as error:
        raise UserError(error.message, hint=f"nothing was collected; {error.hint}") from error


def _is_old(files: Collection[FileStat], now: datetime, min_age: timedelta) -> bool:
    """Every file is older than the floor; one of unknown age counts as new."""
    return all(file.modified is not None and now - file.modified >= min_age for file in files)


def _committed(
    stage: _StageFiles, manifest: Manifest, keep: Keep, pinned: set[str], *, now: datetime, min_age: timedelta
) -> list[GcItem]:
    """What may go of a wanted stage that is finished."""
    winner = f"{artifacts.attempt(*stage.name, manifest.attempt_id)}/"
    named = {file.path for file in manifest.files}
    items: list[GcItem] = []
    for file in stage.files:
        is_winners = file.path.startswith(winner)
        if file.path == stage.marker:
            continue
        if is_winners and file.path.startswith(f"{winner}resume/"):
            items += _delete(stage, [file], pinned, Why.RESUME)
        elif _is_old([file], now, min_age):
            if file.path in named and keep == Keep.RECORD and file.path.endswith(WEIGHTS):
                items += _delete(stage, [file], pinned, Why.RETENTION)
            elif not is_winners and file.path not in named:
                items += _delete(stage, [file], pinned, Why.LOSER)
            elif file.path.startswith(f"{winner}files/") and file.path not in named:
                items += _delete(stage, [file], pinned, Why.UNNAMED)
    return items


def _delete(stage: _StageFiles, files: Iterable[FileStat], pinned: set[str], why: Why) -> list[GcItem]:
    """Items for all but the pinned files: marker, then receipts, then the rest."""
    going = [file for file in files if file.path not in pinned]
    going.sort(key=lambda file: (file.path != stage.marker, "/receipts/" not in file.path, file.path))
    return [GcItem(file.path, file.size, why) for file in going]


def _point_keys(store: Store, manifest: Manifest) -> set[str]:
    """The points that a finished evaluation consists of; none when its files were collected."""
    for file in manifest.files:
        if file.name == "points.json":
            data = store.read_or_none(file.path)
            return set() if data is None else {point["pointKey"] for point in json.loads(data)}
    return set()


def _points(store: Store, named: Collection[str], *, now: datetime, min_age: timedelta) -> list[GcItem]:
    paths = {artifacts.point(key) for key in named}
    unnamed = [file for file in store.list(artifacts.POINTS) if file.path not in paths]
    return _old(unnamed, Why.POINT, now, min_age)


def _old(files: Iterable[FileStat], why: Why, now: datetime, min_age: timedelta) -> list[GcItem]:
    return [GcItem(file.path, file.size, why) for file in files if _is_old([file], now, min_age)]


def _is_unfinished(store: Store, name: StageName) -> bool:
    """Is it wanted and not committed? Then what looks like a leftover may be a write that goes on."""
    return name in _roots(read_all_wanted(store)) and store.stat(artifacts.marker(*name)) is None


def _has_changed(store: Store, name: StageName, items: Collection[GcItem]) -> bool:
    """Did a run come to want what the plan deletes, or an attempt commit it, after the plan was made?"""
    keep = _roots(read_all_wanted(store)).get(name)
    marker = artifacts.marker(*name)
    data = store.read_or_none(marker)
    if any(item.why == Why.UNWANTED for item in items):
        return keep is not None or (data is not None and all(item.path != marker for item in items))
    if data is None:
        return True
    named = {file.path for file in Manifest.from_bytes(data, source=store.uri(marker)).files}
    return keep != Keep.RECORD and any(item.path in named for item in items)
