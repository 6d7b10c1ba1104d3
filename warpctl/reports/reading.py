"""Evaluated points from the store, each verified against what the evaluation named."""

from __future__ import annotations

from collections.abc import Sequence

from warpctl import artifacts
from warpctl.errors import CorruptError, InputError
from warpctl.reports.estimate import Evaluated, distinct
from warpctl.reports.evaluation import POINTS_FILE, EvaluatedPoint, NamedPoint, read_names
from warpctl.storage.artifact import Artifact
from warpctl.storage.manifest import digest_of
from warpctl.storage.store import Store


def read_evaluated(store: Store, evaluations: Sequence[Artifact]) -> tuple[Evaluated, ...]:
    """Every named point of the evaluations, each stored point read and verified once.

    InputError for a point that is gone, CorruptError for one whose bytes are not those that were evaluated.
    """
    points: dict[str, EvaluatedPoint] = {}
    evaluated: list[Evaluated] = []
    for artifact in evaluations:
        for named in read_names(artifact.read(POINTS_FILE)):
            if named.digest not in points:
                points[named.digest] = _read_point(store, named)
            evaluated.append((named, points[named.digest]))
    return distinct(evaluated)


def _read_point(store: Store, named: NamedPoint) -> EvaluatedPoint:
    path = artifacts.point(named.point_key)
    data = store.read_or_none(path)
    if data is None:
        raise InputError(
            f"the evaluated point {named.name} is gone from {store.uri(path)}",
            hint="delete the evaluation's marker, then run the same command: only this point is computed again",
        )
    if digest_of(data) != named.digest:
        raise CorruptError(f"{store.uri(path)} is not the point that was evaluated: its bytes were altered")
    return EvaluatedPoint.from_bytes(data, name=store.uri(path))
