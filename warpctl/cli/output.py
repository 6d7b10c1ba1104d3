"""-o table|wide|json|yaml|name: the same facts for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from warpctl.cli.terminal import result


class OutputFormat(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"

    @property
    def is_for_people(self) -> bool:
        return self in (OutputFormat.TABLE, OutputFormat.WIDE)


def emit(output: OutputFormat, *, document: Any, names: Sequence[str], tables: Callable[[], str]) -> None:
    """Print a result: `document` as JSON or YAML, `names` one a line, or what `tables` makes."""
    match output:
        case OutputFormat.JSON:
            result(json_text(document), is_folded=False)
        case OutputFormat.YAML:
            result(yaml_text(document).rstrip("\n"), is_folded=False)
        case OutputFormat.NAME:
            if names:
                result("\n".join(names), is_folded=False)
        case _:
            result(tables())


def json_text(document: Any) -> str:
    """Indented JSON, ASCII, so that any terminal and any program reads it."""
    import json

    return json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False)


def yaml_text(document: Any) -> str:
    """Block YAML; texts that look like numbers are quoted."""
    import io

    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # its stub has no such attribute
    yaml.width = 1000
    text = io.StringIO()
    yaml.dump(document, text)
    return text.getvalue()
