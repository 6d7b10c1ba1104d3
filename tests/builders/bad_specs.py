"""The table of bad WarpRuns (tests/bad_specs), as data and as YAML, for the parser's tests and for an API server's."""

from __future__ import annotations

import copy
import io
import re
from pathlib import Path

from ruamel.yaml import YAML

FOLDER = Path(__file__).parents[1] / "bad_specs"
GOOD = YAML(typ="safe").load(FOLDER / "good.yaml")
ROWS = YAML(typ="safe").load(FOLDER / "rows.yaml")


def spoil(row):
    """good.yaml with the changes of a row, as data."""
    data = copy.deepcopy(GOOD)
    for path, value in row.get("set", {}).items():
        holder, last = _holder(data, path)
        holder[last] = value
    for path in row.get("remove", []):
        holder, last = _holder(data, path)
        del holder[last]
    return data


def _holder(data, path):
    *steps, last = [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]
    for step in steps:
        data = data.setdefault(step, {}) if isinstance(data, dict) else data[step]
    return data, last


def as_yaml(data):
    stream = io.StringIO()
    writer = YAML(typ="rt")
    writer.default_flow_style = False
    writer.dump(data, stream)
    return stream.getvalue()
