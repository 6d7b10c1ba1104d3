"""A YAML text as plain data, with the place and the original spelling of every value.

The text is composed into nodes and the data is read off them here, so that no tag is ever evaluated, aliases are bounded,
and an error can show what the user wrote ("1e-6", not 1e-06). YAML 1.2, as ruamel.yaml reads it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from warpctl.errors import Problem

MAX_BYTES: Final = 1024 * 1024
MAX_VALUES: Final = 20_000
Location = tuple[str | int, ...]
_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands, counted from 1, and how it is spelt; `is_quoted` holds for texts in quotes."""

    line: int
    column: int
    text: str
    is_quoted: bool = False


@dataclass(slots=True)
class Document:
    """One YAML document.

    `data` has dicts, lists and scalars; `values` and `keys` give the place of each value and of each mapping key by its
    location; `problems` holds all that the YAML itself has wrong.
    """

    data: Any = None
    values: dict[Location, Place] = field(default_factory=dict)
    keys: dict[Location, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def dotted(location: Location) -> str:
    """("spec", "models", "rewards", 0, "name") is spec.models.rewards[0].name."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def compose(text: str, *, source: str) -> Document:
    """Read one document; what is wrong with it is in its `problems`, never raised."""
    document = Document()
    if len(text) > MAX_BYTES:
        message = f"is larger than {MAX_BYTES // 1024} KiB, which no WarpRun is"
        document.problems.append(Problem(path="", message=f"{source} {message}", source=source, line=1, column=1))
        return document
    try:
        node = YAML(typ="rt", pure=True).compose(text)
    except RecursionError:
        document.problems.append(
            Problem(path="", message="the YAML is nested too deeply", source=source, line=1, column=1)
        )
        return document
    except (YAMLError, ValueError) as error:
        document.problems.append(_yaml_problem(error, text, source))
        return document
    if node is None:
        message, hint = "the file is empty", "`warpctl schema` prints what a WarpRun may hold; specs/ has examples"
        document.problems.append(Problem(path="", message=message, hint=hint, source=source, line=1, column=1))
        return document
    reader = _Reader(document, source)
    try:
        document.data = reader.read(node, ())
    except _TooManyError:
        mark = node.start_mark
        message = f"holds more than {MAX_VALUES} values once its aliases are followed"
        document.problems = [
            Problem(path="", message=message, source=source, line=mark.line + 1, column=mark.column + 1)
        ]
    return document


class _TooManyError(Exception):
    pass


class _Reader:
    """Turns nodes into data; a value that means nothing becomes a problem and null."""

    def __init__(self, document: Document, source: str) -> None:
        self.document = document
        self.source = source
        self.count = 0
        self.open: set[int] = set()

    def read(self, node: Node, at: Location) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise _TooManyError
        self.document.values.setdefault(at, _place(node))
        if id(node) in self.open:
            return self.problem(node, at, "must not contain itself", "an alias points to a part that it is in")
        tag = str(node.tag)
        kind = tag.removeprefix(_TAG)
        if isinstance(node, ScalarNode) and kind in _SCALARS:
            return self.scalar(node, at, kind)
        self.open.add(id(node))
        try:
            if isinstance(node, MappingNode) and kind == "map":
                return self.mapping(node, at)
            if isinstance(node, SequenceNode) and kind == "seq":
                return [self.read(child, (*at, index)) for index, child in enumerate(node.value)]
        finally:
            self.open.discard(id(node))
        shown = tag.replace(_TAG, "!!")
        return self.problem(node, at, f"has the YAML tag {shown}, which has no meaning here", "remove the tag")

    def scalar(self, node: ScalarNode, at: Location, kind: str) -> Any:
        text = str(node.value)
        if kind == "int":
            if not _INTEGER.fullmatch(text) or len(text) > 20:
                hint = f'write plain digits, or quote it if it is a text: "{text}"'
                return self.problem(node, at, "must be a plain whole number", hint)
            return int(text)
        if kind == "float":
            return _float(text)
        if kind == "bool":
            return text.lower() == "true"
        return None if kind == "null" else text

    def mapping(self, node: MappingNode, at: Location) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self.problem(key_node, at, "has a key that is not a text", "")
                continue
            if str(key_node.tag) == f"{_TAG}merge":
                self.problem(key_node, at, "uses a YAML merge key (<<)", "write the fields out")
                continue
            key = str(key_node.value)
            here = (*at, key)
            if key in data:
                first = self.document.keys[here].line
                self.problem(key_node, here, f"is given twice, first on line {first}", "keep one of them")
                continue
            self.document.keys[here] = _place(key_node)
            data[key] = self.read(value_node, here)
        return data

    def problem(self, node: Node, at: Location, message: str, hint: str) -> None:
        place = _place(node)
        self.document.problems.append(
            Problem(
                path=dotted(at), message=message, hint=hint, source=self.source, line=place.line, column=place.column
            )
        )


_SCALARS = {"str", "int", "float", "bool", "null", "timestamp"}


def _float(text: str) -> float:
    """A number that is about to be refused, since decimals are quoted; only that it is one matters."""
    try:
        return float(text.replace("_", ""))
    except ValueError:  # .inf, .nan
        return float(text.lower().replace(".", "", 1))


def _place(node: Node) -> Place:
    mark = node.start_mark
    if isinstance(node, ScalarNode):
        return Place(mark.line + 1, mark.column + 1, str(node.value), is_quoted=node.style in {'"', "'", "|", ">"})
    text = "a mapping" if isinstance(node, MappingNode) else "a list"
    return Place(mark.line + 1, mark.column + 1, text)


def _yaml_problem(error: YAMLError | ValueError, text: str, source: str) -> Problem:
    """One clear line about a text that is no YAML document."""
    if isinstance(error, ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        message = f"the control character U+{error.character:04X} is not allowed in YAML"
        return Problem(path="", message=message, source=source, line=line, column=column)
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return Problem(path="", message=f"this is not YAML: {error}", source=source, line=1, column=1)
    problem = str(error.problem)
    message, hint = f"this is not YAML: {problem}", ""
    if "another document" in problem:
        message, hint = "the file holds more than one YAML document", "one WarpRun a file: remove what follows the ---"
    elif r"'\t'" in problem:
        message, hint = "a tab cannot indent YAML", "use spaces"
    elif "mapping values are not allowed" in problem:
        hint = "check the indentation of this line; quote a text that holds a colon"
    elif "quoted scalar" in str(error.context):
        message, hint = "this is not YAML: a quoted text is not closed", "close the quote"
    elif "flow" in str(error.context) and error.context_mark is not None:
        bracket = "[" if "sequence" in str(error.context) else "{"
        hint = f"the {bracket} on line {error.context_mark.line + 1} is not closed"
    mark = error.context_mark if "not closed" in message + hint and error.context_mark else error.problem_mark
    return Problem(path="", message=message, hint=hint, source=source, line=mark.line + 1, column=mark.column + 1)
