"""`warpctl report --compare`: evaluations of several runs, read from their stores, as one page beside the user."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from warpctl.cli.run_reference import RunReference, resolve
from warpctl.cli.table import table_text
from warpctl.cli.terminal import result, warn
from warpctl.errors import InputError, UserError
from warpctl.plan.stages import stages
from warpctl.reports.comparison_page import (
    RunEvaluations,
    RunsCompared,
    SpecDifference,
    compare_runs,
    comparison_figures,
    render_comparison,
)
from warpctl.reports.facts import read_lineage
from warpctl.reports.page import bounds, mean_gap
from warpctl.reports.reading import read_evaluated
from warpctl.reports.render import has_renderer, to_svg
from warpctl.spec.change_class import differences
from warpctl.spec.stage_input import StageKind
from warpctl.storage.artifact import Artifact

_MAX_VALUE = 60
"""Characters of a field's value that are shown."""


def report_comparison(typed: Sequence[str], *, to: str, state_dir: str) -> None:
    """Write the page and print the differences. UserError (exit 2) for fronts that cannot be held against each other."""
    if len(typed) < 2:
        raise UserError(f"--compare needs two or more runs, got {len(typed)}", hint="`warpctl report --compare A B`")
    references = [resolve(run, state_dir) for run in typed]
    names = _names(references)
    evaluation = references[0].run.spec.evaluation
    try:
        compared = compare_runs(
            [_evaluations(reference, name) for reference, name in zip(references, names, strict=True)],
            confidence_level=float(evaluation.confidence_level),
            max_kl=float(evaluation.hypervolume.max_kl),
        )
    except InputError as error:
        raise UserError(error.message, hint=error.hint) from error
    for note in compared.notes():
        warn(note)
    if not has_renderer():
        warn("no charts: vl-convert is not installed", hint="pip install 'warpctl[report]'")
    page = render_comparison(
        compared,
        figures=comparison_figures(compared, to_svg) if has_renderer() else (),
        spec_differences=spec_differences(references),
    )
    path = Path(to or f"{'-vs-'.join(re.sub(r'[^A-Za-z0-9.-]+', '-', name) for name in names)}.html")
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}", hint="give another place with --to") from error
    result(_table(compared))
    result(f"report: {path.absolute()}")


def _names(references: Sequence[RunReference]) -> list[str]:
    """Names of the runs; what was typed where two runs have the same name."""
    names = [reference.run.full_name for reference in references]
    short = [reference.run.metadata.name for reference in references]
    if len(set(short)) == len(short):
        return short
    if len(set(names)) == len(names):
        return names
    typed = [reference.typed for reference in references]
    if len(set(typed)) < len(typed):
        raise UserError("a run cannot be compared with itself", hint="give each run once")
    return typed


def _evaluations(reference: RunReference, name: str) -> RunEvaluations:
    """The published evaluations of the run's iterations; UserError when there is none."""
    observed = reference.engine().observe()
    graph = stages(reference.run, observed.imported())
    published = [
        stage
        for stage in graph.stages.values()
        if stage.kind is StageKind.EVALUATE and not stage.control and observed.is_committed(stage.key)
    ]
    if not published:
        raise UserError(
            f"{name}: nothing is evaluated yet, so there is no front to compare",
            hint=f"`warpctl status {reference.typed}` shows how far it is",
        )
    evaluations = [Artifact.load(reference.store, stage.kind, stage.key) for stage in published]
    _, facts = read_lineage(reference.store, [artifact.manifest for artifact in evaluations])
    return RunEvaluations(name, read_evaluated(reference.store, evaluations), facts)


def spec_differences(references: Sequence[RunReference]) -> list[SpecDifference]:
    """The fields that any run has otherwise than the first one, Outcome fields first."""
    first, *others = references
    changes = [{change.path: change for change in differences(first.run, other.run)} for other in others]
    paths = dict.fromkeys(path for each in changes for path in each)
    found = []
    for path in paths:
        known = next(each[path] for each in changes if path in each)
        values = [known.old, *(each[path].new if path in each else known.old for each in changes)]
        found.append(SpecDifference(path, str(known.change_class), [_value(value) for value in values]))
    order = ("Outcome", "Extend", "Live", "Placement")
    return sorted(found, key=lambda each: order.index(each.change_class))


def _value(value: Any) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..."


def _table(compared: RunsCompared) -> str:
    rows = [
        (
            f"{each.second} - {each.first}",
            line.measure,
            bounds(mean_gap(line, each.comparison.kl_limits)),
            bounds(line.hypervolume.difference),
        )
        for each in compared.differences
        for line in each.comparison.measures
        if line.measure in compared.measures
    ]
    return table_text(("FRONTS", "JUDGED BY", "MEAN GAP", "HYPERVOLUME"), rows)
