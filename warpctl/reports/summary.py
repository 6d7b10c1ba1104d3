"""The front in a terminal: a small table with intervals, and the best point within the run's KL budget.

Reads front.json, the view that the report leaves under runs/<namespace>/<name>/report/, so that `run` and `status`
cost one small read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from warpctl import artifacts

FRONT_FILE = "front.json"


class Reader(Protocol):
    """The part of a Store that is needed here."""

    def read_or_none(self, path: str) -> bytes | None: ...


@dataclass(frozen=True)
class FrontTable:
    """Plain text cells; the CLI draws them."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best_row: int | None
    """Index of the best point's row."""
    best: str
    """One sentence about the best point; empty when no point keeps the KL budget."""


def load_front(store: Reader, *, namespace: str, name: str) -> dict[str, Any] | None:
    """The newest front.json of a run, None before its first report or when it cannot be read (it is only a view)."""
    data = store.read_or_none(artifacts.report(namespace, name, FRONT_FILE))
    if data is None:
        return None
    try:
        document = json.loads(data)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def front_table(document: Mapping[str, Any]) -> FrontTable:
    """The table of a front.json: one row per point, non-dominated ones marked with `*`."""
    held_out = tuple(document["measures"][1:])
    columns = ("ITER", "POINT", "KL", "REWARD", *(name.upper() for name in held_out), "LENGTH", "FRONT")
    rows = tuple(
        (
            point["control"] or (str(point["iteration"]) if point["iteration"] else "-"),
            point["label"],
            plus_minus(point["kl"]),
            plus_minus(point["reward"]),
            *(plus_minus(point["heldOut"].get(name)) for name in held_out),
            f"{point['length']['mean']:.1f}",
            "*" if point["isOnFront"] else "",
        )
        for point in document["points"]
    )
    places = [i for i, point in enumerate(document["points"]) if _is_same(point, document["best"])]
    best_row = places[0] if places else None
    return FrontTable(columns, rows, best_row, _best_sentence(document, best_row))


def plus_minus(estimate: Mapping[str, float] | None) -> str:
    """Mean and half the width of its interval: `1.83 +-0.04`; a dash for what was not evaluated."""
    if estimate is None:
        return "-"
    half = (estimate["high"] - estimate["low"]) / 2
    return f"{estimate['mean']:.2f} \u00b1{half:.2f}"


def _is_same(point: Mapping[str, Any], best: Mapping[str, Any] | None) -> bool:
    return best is not None and all(point[part] == best[part] for part in ("iteration", "control", "name"))


def _best_sentence(document: Mapping[str, Any], best_row: int | None) -> str:
    if best_row is None:
        return ""
    point, max_kl = document["points"][best_row], document["maxKl"]
    where = f"iteration {point['iteration']}, {point['label']}" if point["iteration"] else point["label"]
    budget = "without a KL budget" if max_kl is None else f"with KL at most {max_kl:g}"
    trained_on = document["measures"][0]
    measure = document["best"].get("measure", trained_on)
    judged = f"reward {plus_minus(point['reward'])}"
    if measure != trained_on:
        judged = f"held-out {measure} {plus_minus(point['heldOut'][measure])}, {judged}"
    return f"best {budget}: {where}, {judged} at KL {plus_minus(point['kl'])}"
