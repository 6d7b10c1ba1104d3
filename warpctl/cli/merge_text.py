"""What `warpctl merge` says: its plan, and what it saw, group by group."""

from __future__ import annotations

import re
from collections.abc import Sequence

from warpctl.cli.counts import count_text
from warpctl.cli.sizes import size_text
from warpctl.cli.table import table_text
from warpctl.cli.terminal import YELLOW
from warpctl.merging.diagnostics import GroupDiagnostics
from warpctl.spec.merge_method import Granularity
from warpctl.workers.merge_plan import MergePlan

MOST_ROWS = 16
SHOWN_AT_ENDS = 4
NOTHING = "-"


def plan_text(plan: MergePlan) -> str:
    """Inputs, outputs, sizes, and what is done to them."""
    request = plan.request
    if request.linear_weights:
        weights = (1 - sum(request.linear_weights), *request.linear_weights)
        models = zip((request.init, *request.policies), weights, strict=True)
        rows = [[f"model {number}", f"{uri}  (weight {weight:.4g})"] for number, (uri, weight) in enumerate(models, 1)]
        what = f"their weighted average, {request.dtype}"
    elif request.is_of_weights:
        ends = enumerate((request.init, *request.policies))
        rows = [[f"model {1 + t}", f"{uri}  (at t = {t})"] for t, uri in ends]
        what = request.dtype
    else:
        rows = [["init", request.init]]
        rows += [[f"policy {number}", uri] for number, uri in enumerate(request.policies, start=1)]
        what = request.dtype if request.slerp_rules else f"LITI rate {request.liti_rate}, {request.dtype}"
    rows.append(["to", f"{request.out}  ({what})"])
    if request.merged_out:
        rows.append(["and to", f"{request.merged_out}  (the merged policy, {request.dtype})"])
    rows.append(["model", _model_text(plan)])
    if not request.linear_weights:
        rows.append(["slerp", _slerp_text(plan)])
    rows.append(["bytes", _bytes_text(plan)])
    if plan.sources.tied_copies:
        rows.append(["left out", f"{', '.join(plan.sources.tied_copies)}: a copy, which not all inputs store"])
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {text}" for name, text in rows)


def _model_text(plan: MergePlan) -> str:
    return (
        f"{_number_text(plan.num_parameters)} parameters in {count_text(len(plan.sources.specs), 'tensor')}, "
        f"{count_text(len(plan.copied) + 1, 'other file')} from {'model 1' if plan.request.is_of_weights else 'the init'}"
    )


def _slerp_text(plan: MergePlan) -> str:
    request = plan.request
    what = {Granularity.LAYER: "layer", Granularity.TENSOR: "tensor", Granularity.GLOBAL: "model"}[request.granularity]
    text = f"of the whole {what}" if request.granularity is Granularity.GLOBAL else f"{what} by {what}"
    text += f", {count_text(len(plan.groups), 'group')}"
    if request.slerp_rules:
        of = "weights" if request.is_of_weights else "task vectors"
        return f"of {of}, {text}, t = {_slerp_weight_text(plan)}"
    if len(request.policies) > 2:
        text += f", order {request.order}"
    return text if len(request.policies) > 1 else f"none: one policy is its own merge ({text})"


def _slerp_weight_text(plan: MergePlan) -> str:
    """mergekit's t, or its range where it depends on the tensor."""
    found = plan.method.slerp_weights.values()
    low, high = min(found), max(found)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _bytes_text(plan: MergePlan) -> str:
    text = f"read {size_text(plan.read_bytes)}, write {size_text(plan.write_bytes)}"
    if not plan.read_twice:
        return text
    which = "all" if len(plan.read_twice) == len(plan.groups) else f"{len(plan.read_twice)}"
    groups = f"{which} {'group' if which == '1' else 'groups'}" if len(plan.groups) > 1 else "the model"
    return f"{text} ({groups} read twice, first for inner products: larger than --memory)"


def groups_text(diagnostics: Sequence[GroupDiagnostics], *, is_wide: bool) -> str:
    """A row for each group; without `is_wide` a long model is shortened to its ends, its extremes and what is degenerate."""
    diagnostics = sorted(diagnostics, key=lambda group: _natural(group.group))
    shown = list(range(len(diagnostics))) if is_wide else shown_groups(diagnostics)
    rows, styles = [], {}
    before = -1
    for index in shown:
        if index > before + 1:
            rows.append([f"... {count_text(index - before - 1, 'group')}", *[""] * 6])
        before = index
        group = diagnostics[index]
        if group.degenerate:
            styles[len(rows)] = YELLOW
        rows.append(
            [
                group.group,
                _span([group.cosines[a][b] for b in range(len(group.norms)) for a in range(b)], "+z.3f"),
                _span(group.angles, ".1f"),
                _span(group.norms, ".3g"),
                _span(group.weights, ".3f"),
                NOTHING if group.slerp_weight is None else f"{group.slerp_weight:.4g}",
                ", ".join(group.degenerate),
            ]
        )
    has_notes = any(row[-1] for row in rows)
    has_points = any(group.slerp_weight is not None for group in diagnostics)
    wanted = {"T": has_points, "LERP": has_notes}
    columns = ["GROUP", "COSINE", "ANGLE", "NORMS", "WEIGHTS", *wanted]
    places = [place for place, column in enumerate(columns) if wanted.get(column, True)]
    return table_text(
        [columns[place] for place in places], [[row[place] for place in places] for row in rows], styles=styles
    )


def shown_groups(diagnostics: Sequence[GroupDiagnostics]) -> list[int]:
    """Indices of the groups worth a row: all of a few; else the ends, the extremes, and the first of each degeneracy."""
    count = len(diagnostics)
    if count <= MOST_ROWS:
        return list(range(count))
    shown = {*range(SHOWN_AT_ENDS), *range(count - SHOWN_AT_ENDS, count)}
    cosines = {index: value for index, each in enumerate(diagnostics) if (value := _mean_cosine(each)) is not None}
    if cosines:
        shown |= {min(cosines, key=cosines.__getitem__), max(cosines, key=cosines.__getitem__)}
    shown.add(max(range(count), key=lambda index: max(diagnostics[index].norms)))
    kinds = {kind for each in diagnostics for kind in each.degenerate}
    shown |= {next(index for index, each in enumerate(diagnostics) if kind in each.degenerate) for kind in kinds}
    return sorted(shown)


def summary_text(plan: MergePlan, diagnostics: Sequence[GroupDiagnostics], *, seconds: str, speed: float) -> str:
    """What was made of how much, and how quickly."""
    if plan.request.linear_weights:
        return f"averaged {len(plan.folders)} models in {seconds} ({size_text(round(speed))}/s)"
    degenerate = sum(bool(each.degenerate) for each in diagnostics)
    policies = (
        "2 models"
        if plan.request.is_of_weights
        else "1 policy"
        if len(plan.request.policies) == 1
        else f"{len(plan.request.policies)} policies"
    )
    groups = count_text(len(diagnostics), "group")
    lines = [f"merged {policies}, {groups}, in {seconds} ({size_text(round(speed))}/s)"]
    if degenerate:
        lines.append(f"{count_text(degenerate, 'group')} without an angle: LERP instead of SLERP, see docs/merging.md")
    return "\n".join(lines)


def _natural(name: str) -> list[tuple[int, str]]:
    """model.layers.9 before model.layers.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _mean_cosine(group: GroupDiagnostics) -> float | None:
    found = [value for b in range(len(group.norms)) for a in range(b) if (value := group.cosines[a][b]) is not None]
    return sum(found) / len(found) if found else None


def _span(values: Sequence[float | None], form: str) -> str:
    """One or two figures as they are, of more the smallest and the largest."""
    known = [value for value in values if value is not None]
    if not known:
        return NOTHING
    if len(values) <= 2:
        return " ".join(NOTHING if value is None else format(value, form) for value in values)
    return f"{format(min(known), form)}..{format(max(known), form)}"


def _number_text(number: int) -> str:
    """8.03 B, 124 M, 312."""
    for factor, name in ((10**9, " B"), (10**6, " M"), (10**3, " k")):
        if number >= factor:
            return f"{number / factor:.3g}{name}"
    return str(number)
