"""From the text of a WarpRun to the model, or to everything that is wrong with it at once.

Checks are as strict as an API server's: camelCase names only, no text where a number belongs, decimals quoted.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from warpctl.errors import Problem, SpecError
from warpctl.spec.base import DISAGREEMENT
from warpctl.spec.fields import fields, pattern_of
from warpctl.spec.messages import explain
from warpctl.spec.models import CheckpointReward, Reward, SourceSplit
from warpctl.spec.source import MAX_BYTES, Document, Location, Place, compose, dotted
from warpctl.spec.tracking import TrackerType
from warpctl.spec.warp_run import WarpRun

# Stand-ins for required values that are missing or wrong, so that the fields that are right can be checked together.
_STAND_IN_REWARD = {"type": "Checkpoint", "name": "stand-in", "uri": "x"}
_STAND_INS: dict[str, Any] = {
    "apiVersion": "warpctl.dev/v1alpha1",
    "kind": "WarpRun",
    "metadata": {"name": "stand-in"},
    "name": "stand-in",
    "uri": "x",
    "revision": "x",
    "function": "x:x",
    "url": "http://x",
    "value": "x",
    "steps": [1],
    "count": 1_000_000,
    "storage": {"uri": "x"},
    "sft": {"uri": "x"},
    "rewards": [_STAND_IN_REWARD],
    "models": {"sft": {"uri": "x"}, "rewards": [_STAND_IN_REWARD]},
    "prompts": {"uri": "x"},
    "training": {"steps": [1]},
}
_STAND_IN_ITEMS: dict[str | int, Any] = {"steps": 1, "litiRates": "1.98765", "controls": "NoAnchor"}


@dataclass(frozen=True, slots=True)
class _Failure:
    """One pydantic error at its place in the data; `fields` are the locations that take part in it."""

    kind: str
    at: Location
    context: dict[str, Any]
    fields: tuple[Location, ...]


def parse_file(path: str | Path) -> WarpRun:
    """Read a WarpRun from a file; its relative paths stay as they are (see `resolve_relative_uris`).

    Raises SpecError with every problem of the file, also when there is no such file.
    """
    source = str(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise _unreadable(source, "there is no such file", hint="specs/ has examples") from error
    except IsADirectoryError as error:
        raise _unreadable(source, "is a folder, not a file", hint=_files_hint(Path(path))) from error
    except OSError as error:
        raise _unreadable(source, f"cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise _unreadable(source, f"is larger than {MAX_BYTES // 1024} KiB, which no WarpRun is")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line_start = data.rfind(b"\n", 0, error.start) + 1
        line, column = data.count(b"\n", 0, error.start) + 1, error.start - line_start + 1
        message, hint = f"byte 0x{data[error.start]:02x} is not UTF-8", "save the file as UTF-8"
        problem = Problem(path="", message=message, hint=hint, source=source, line=line, column=column)
        raise SpecError((problem,)) from error
    return parse_text(text, source=source)


def written_spec(path: str | Path) -> dict[str, Any]:
    """`spec` of a file that `parse_file` has read, as it is written there: 1e-3 stays 1e-3."""
    data: dict[str, Any] = compose(Path(path).read_text("utf-8-sig"), source=str(path)).data
    spec: dict[str, Any] = data["spec"]
    return spec


def parse_text(text: str, *, source: str) -> WarpRun:
    """Read a WarpRun from YAML; `source` names the text in errors.

    Raises SpecError with all problems, in the order of the text.
    """
    document = compose(text, source=source)
    if not document.values:
        raise SpecError(tuple(document.problems))
    if not isinstance(document.data, dict):
        if not document.problems:
            place = document.values[()]
            problem = Problem(path="", message="a WarpRun must be a mapping", value=_shown(place), hint="see specs/")
            document.problems.append(_at(problem, source, place))
        raise SpecError(tuple(document.problems))
    run, failures = _validate(document.data)
    if run is not None and not document.problems:
        return run
    unread = {problem.path for problem in document.problems}
    reported = [each for each in _with_disagreements(document.data, failures) if not _is_under(dotted(each.at), unread)]
    problems = [*document.problems, *(_problem(each, document, source) for each in reported)]
    raise SpecError(tuple(sorted(problems, key=lambda each: (each.line, each.column, each.path))))


def resolve_relative_uris(run: WarpRun, base: Path) -> WarpRun:
    """The run with relative local paths made absolute against `base`, the folder of the spec file.

    A path with ~ and a URI with a scheme stay as they are, because their text is part of the import's key.
    """

    def absolute(uri: str) -> str:
        if uri.startswith(("~", "/")) or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", uri):
            return uri
        return os.path.normpath(base.absolute() / uri)

    def reward(given: Reward) -> Reward:
        if not isinstance(given, CheckpointReward):
            return given
        return given.model_copy(update={"uri": absolute(given.uri)})

    spec = run.spec
    split = spec.prompts.evaluation_split
    if isinstance(split, SourceSplit):
        split = split.model_copy(update={"uri": absolute(split.uri)})
    models = spec.models.model_copy(
        update={
            "sft": spec.models.sft.model_copy(update={"uri": absolute(spec.models.sft.uri)}),
            "rewards": tuple(reward(each) for each in spec.models.rewards),
            "held_out_rewards": tuple(reward(each) for each in spec.models.held_out_rewards),
        }
    )
    prompts = spec.prompts.model_copy(update={"uri": absolute(spec.prompts.uri), "evaluation_split": split})
    storage = spec.storage.model_copy(update={"uri": absolute(spec.storage.uri)})
    tracking = spec.tracking
    if tracking is not None and tracking.uri is not None and tracking.type is TrackerType.TENSOR_BOARD:
        tracking = tracking.model_copy(update={"uri": absolute(tracking.uri)})
    update = {"storage": storage, "models": models, "prompts": prompts, "tracking": tracking}
    return run.model_copy(update={"spec": spec.model_copy(update=update)})


def _validate(data: Any) -> tuple[WarpRun | None, list[_Failure]]:
    """The model, or what pydantic found, without errors that only follow from others."""
    try:
        # JSON, because strict JSON takes lists and enumeration texts but no "3" for 3.
        return WarpRun.model_validate_json(json.dumps(data), strict=True, by_alias=True, by_name=False), []
    except ValidationError as error:
        failures = [_failure(each["type"], each["loc"], each.get("ctx", {}), data) for each in error.errors()]
    below = {each.at[:cut] for each in failures for cut in range(len(each.at))}
    return None, [each for each in failures if not (each.kind == "too_short" and each.at in below)]


def _failure(kind: str, loc: Location, context: dict[str, Any], data: Any) -> _Failure:
    at = _location(loc, data)
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        at = (*at, "type")
    fields: tuple[Location, ...] = (at,)
    if kind == DISAGREEMENT:
        # The validator named them relative to its model: what is left of `loc` is where that model stands.
        relative = context["fields"]
        model = at[: len(at) - len(relative[0])]
        fields = tuple((*model, *each) for each in relative)
    return _Failure(kind, at, context, fields)


def _location(loc: Location, data: Any) -> Location:
    """Pydantic's location without the tags of unions that it puts in between."""
    at: list[str | int] = []
    node, tagged = data, False
    for part in loc:
        if isinstance(node, dict) and node.get("type") == part and not tagged:
            tagged = True
        elif isinstance(node, dict):
            node, tagged = node.get(part), False
            at.append(part)
        elif isinstance(node, list) and isinstance(part, int):
            node, tagged = node[part], False
            at.append(part)
    return tuple(at)


def _with_disagreements(data: Any, failures: list[_Failure]) -> Iterator[_Failure]:
    """The failures, then the disagreements among fields that have no failure of their own.

    Pydantic compares fields only when all of them are right, so the wrong ones are replaced and it is asked again.
    """
    blocked: set[Location] = set()
    while failures:
        yield from failures
        data = copy.deepcopy(data)
        failing = {field for each in failures for field in each.fields}
        blocked |= failing
        for field in sorted(failing, key=len, reverse=True):
            _replace(data, field)
        _, again = _validate(data)
        failures = [
            each
            for each in again
            if each.kind == DISAGREEMENT and not any(_overlap(mine, bad) for mine in each.fields for bad in blocked)
        ]


def _replace(data: Any, at: Location) -> None:
    """Put a stand-in at a location, or take the value away where a default steps in."""
    *path, last = at or ("",)
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return
    if last == "type" and isinstance(data, dict):  # the other fields depend on it
        data.clear()
        data.update(_STAND_IN_REWARD if "evaluationSplit" not in path else {"type": "HeldOut", "count": 1_000_000})
    elif isinstance(data, dict):
        data.pop(last, None)
        if last in _STAND_INS:
            data[last] = copy.deepcopy(_STAND_INS[last])
    elif isinstance(data, list) and isinstance(last, int) and path[-1] in _STAND_IN_ITEMS:
        data[last] = _STAND_IN_ITEMS[path[-1]]


def _overlap(one: Location, other: Location) -> bool:
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _is_under(path: str, others: set[str]) -> bool:
    return any(path == other or path.startswith((f"{other}.", f"{other}[")) for other in others if other)


def _problem(failure: _Failure, document: Document, source: str) -> Problem:
    is_unknown = failure.kind == "extra_forbidden"
    places = document.keys if is_unknown else document.values
    place = places.get(failure.at)
    value = "" if is_unknown or place is None else _shown(place)
    if place is None and failure.kind == DISAGREEMENT:
        value = f"{fields()[pattern_of(dotted(failure.at))].default} by default"
    key = document.keys.get(failure.at)
    if place is not None and key is not None and place.line != key.line:  # it begins below: point to its key
        place = dataclasses.replace(place, line=key.line, column=key.column)
    holder = failure.at
    while place is None:  # missing: point to the key of the mapping that lacks it
        holder = holder[:-1]
        place = document.keys.get(holder) or document.values.get(holder)
    variant = _variant(document.data, failure.at[:-1])
    message, hint = explain(failure.kind, failure.context, dotted(failure.at), place, variant=variant)
    return _at(Problem(path=dotted(failure.at), message=message, value=value, hint=hint), source, place)


def _variant(data: Any, at: Location) -> str:
    for part in at:
        data = data[part]
    kind = data.get("type") if isinstance(data, dict) else None
    return kind if isinstance(kind, str) else ""


def _at(problem: Problem, source: str, place: Place) -> Problem:
    return dataclasses.replace(problem, source=source, line=place.line, column=place.column)


def _shown(place: Place) -> str:
    """A value as its author wrote it, in one short line."""
    text = place.text if len(place.text) <= 60 else f"{place.text[:57]}..."
    if place.is_quoted or not text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    return text or "null"


def _unreadable(source: str, message: str, *, hint: str = "") -> SpecError:
    return SpecError((Problem(path=source, message=message, hint=hint),))


def _files_hint(folder: Path) -> str:
    names = sorted(each.name for each in folder.glob("*.yaml"))
    return f"it holds {', '.join(names[:5])}" if names else ""
