"""docs/spec.md and the JSON schema of a WarpRun, both made from the models: `python -m warpctl.spec.reference > docs/spec.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

from warpctl.spec.change_class import ChangeClass, change_class
from warpctl.spec.fields import SpecField, fields
from warpctl.spec.messages import PATTERNS
from warpctl.spec.warp_run import API_VERSION, WarpRun

SYMBOLS: Final[dict[str, str]] = {
    "spec.models.sft": "theta_sft",
    "spec.models.rewards": "r",
    "spec.prompts": "X",
    "spec.iterations": "I",
    "spec.rlRuns": "M",
    "spec.training.steps": "T",
    "spec.training.emaRate": "mu",
    "spec.training.klCoefficient": "beta",
    "spec.merge.order": "lambda",
    "spec.merge.litiRate": "eta",
    "spec.evaluation.litiRates": "eta",
}
"""The paper's symbols (arXiv 2406.16768, Algorithm 1); each stands in the field's docstring too."""

_MEANINGS: Final[dict[ChangeClass, str]] = {
    ChangeClass.LIVE: "acts at once, on running stages too",
    ChangeClass.PLACEMENT: "acts from each stage's next attempt on; finished and running stages stay as they are",
    ChangeClass.EXTEND: "adds stages and reruns none",
    ChangeClass.OUTCOME: "changes stage keys: the stages that depend on it are made anew (`spec.updatePolicy`); what was "
    "published stays, so that a reverted edit goes on where it was",
}

_HEAD: Final = f"""# WarpRun reference ({API_VERSION})

<!-- Made from the models in warpctl/spec by `python -m warpctl.spec.reference`; a test keeps it up to date. -->

Every field of a WarpRun. `[]` stands for each item of a list. Decimals are quoted ("0.01", "1e-6"), so that no YAML or JSON
library rounds them; names are camelCase and unknown ones are refused. Symbols are those of the paper (arXiv 2406.16768).

The change class says what an edit does to a run that has started:
"""

_COMPUTE: Final = "spec.compute."


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a WarpRun as a user writes it, for editors and `warpctl schema`."""
    schema = WarpRun.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def markdown() -> str:
    """The whole reference page."""
    classes = "".join(f"\n- **{each.value}**: {_MEANINGS[each]}." for each in ChangeClass)
    tables = "\n".join(_section(path, rows) for path, rows in _sections())
    return f"{_HEAD}{classes}\n\n{tables}"


def _sections() -> Iterator[tuple[str, list[SpecField]]]:
    """One table for the top and for each section of spec; compute's stage kinds are alike, so one stands for all."""
    shown = [each for each in fields().values() if not each.path.startswith(_COMPUTE) or _is_first_stage_kind(each)]
    yield "", [each for each in shown if not each.section]
    yield "metadata", [each for each in shown if each.section == "metadata"]
    yield "spec", [each for each in shown if each.section == "spec" and not each.is_section]
    for top in [each.path for each in shown if each.section == "spec" and each.is_section]:
        yield top, [each for each in shown if each.path.startswith((f"{top}.", f"{top}["))]


def _is_first_stage_kind(field: SpecField) -> bool:
    """The five stage kinds have the same fields: they are shown once, as those of rl."""
    return field.section == "spec.compute" or field.path.startswith("spec.compute.rl.")


def _section(path: str, rows: list[SpecField]) -> str:
    doc = fields()[path].doc if path else "The object."
    note = "\n\nEvery stage kind has the fields that are shown for rl." if path == "spec.compute" else ""
    lines = [
        f"## {path or 'WarpRun'}",
        "",
        f"{doc}{note}",
        "",
        "| Field | Type | Range | Default | Change | Meaning |",
        "|---|---|---|---|---|---|",
        *(_row(each) for each in rows),
        "",
    ]
    return "\n".join(lines)


def _row(field: SpecField) -> str:
    symbol = f" (*{SYMBOLS[field.path]}*)" if field.path in SYMBOLS else ""
    cells = (f"`{field.path}`{symbol}", field.kind, _range(field), _default(field), _class(field), _meaning(field))
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def _range(field: SpecField) -> str:
    words = ", ".join(f"`{value}`" if value else "empty" for value in field.allowed) or field.range
    items = f"{field.size} items" if field.size else ""
    text = PATTERNS.get(field.pattern, ("", ""))[0].removeprefix("must be ")
    return "; ".join(part for part in (items, words, text) if part)


def _default(field: SpecField) -> str:
    if field.default is None:
        return "required"
    default = "" if field.is_section and field.default == "{}" else f"`{field.default}`"
    return f"{default}; required in {', '.join(field.required_in)}" if field.required_in else default


def _class(field: SpecField) -> str:
    """A section has no class of its own unless all its fields agree: then it is theirs."""
    if not field.path.startswith("spec."):
        return ""
    below = [each for each in fields().values() if each.path.startswith((f"{field.path}.", f"{field.path}["))]
    classes = {change_class(each.path).value for each in [field, *below]}
    return classes.pop() if len(classes) == 1 else ""


def _meaning(field: SpecField) -> str:
    only = f"Only in {', '.join(field.variants)}. " if len(field.variants) == 1 else ""
    return f"{only}{field.doc}"


if __name__ == "__main__":
    sys.stdout.write(markdown())
