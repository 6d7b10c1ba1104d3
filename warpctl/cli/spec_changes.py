"""What a changed spec means for a run that has begun: which fields, of which class, and what each one costs."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TextIO

from pydantic import ValidationError

from warpctl.cli.counts import count_text
from warpctl.cli.run_reference import RunReference
from warpctl.cli.terminal import RED, has_somebody_to_ask, is_agreed, note, paint, warn
from warpctl.errors import UserError, WarpctlError
from warpctl.plan.observed import Observed
from warpctl.plan.stages import Stage, stages
from warpctl.spec.change_class import ChangeClass, FieldChange, differences
from warpctl.spec.compute import UpdatePolicy
from warpctl.spec.warp_run import WarpRun

_PLAIN_EFFECTS = {
    ChangeClass.LIVE: "applies at once",
    ChangeClass.PLACEMENT: "applies from the next attempt on",
    ChangeClass.EXTEND: "adds or drops stages, restarts none",
}


@dataclass(frozen=True, slots=True)
class SpecChange:
    """One changed field and its effect in words; `lost` are started stages that are made anew."""

    change: FieldChange
    effect: str
    lost: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """! where work is made anew, ~ elsewhere."""
        return "!" if self.change.change_class is ChangeClass.OUTCOME else "~"


def changes_since_last_run(reference: RunReference) -> tuple[SpecChange, ...] | None:
    """What differs from the last accepted spec, None when there is none."""
    old = reference.folder.accepted()
    if old is None:
        return None
    changed = differences(old, reference.run)
    # What the old spec made is what a change can lose: its stages are looked at, not those of the new one.
    observed = replace(reference, run=old).engine().observe() if changed else Observed()
    published = frozenset(reference.engine().observe().imported()) if changed else frozenset()
    return spec_changes(old, reference.run, observed, published)


def spec_changes(
    old: WarpRun, new: WarpRun, observed: Observed, published: frozenset[str] = frozenset()
) -> tuple[SpecChange, ...]:
    """Every changed field; the effect of an Outcome change is found by making that change alone.

    `observed` is of the stages of `old`; `published` are keys of `new` whose artifacts are there, as after a reverted edit.
    """
    return tuple(_explained(change, old, new, observed, published) for change in differences(old, new))


def _explained(
    change: FieldChange, old: WarpRun, new: WarpRun, observed: Observed, published: frozenset[str]
) -> SpecChange:
    if change.change_class is not ChangeClass.OUTCOME:
        return SpecChange(change, _PLAIN_EFFECTS[change.change_class])
    alone = _with(old, change) or new
    before = stages(old, observed.imported()).stages
    after = stages(alone, observed.imported())
    changed = [stage for stage in before.values() if _key(after.stages, stage) != stage.key]
    made = [stage for stage in changed if stage.kind != "report"]
    anew = [stage for stage in made if _key(after.stages, stage) not in published]
    # Stopped attempts count: their resume states are hours of work that the new key leaves behind.
    lost = tuple(stage.id for stage in anew if stage.key in observed.committed or stage.key in observed.attempts)
    if stages(old, observed.imported()).pending and all(stage.id in before for stage in changed):
        return SpecChange(change, "changes stages; which ones is known after import", lost)
    if not changed:
        return SpecChange(change, "changes no stage")
    if made and not anew:
        return SpecChange(change, "goes back to artifacts that are there")
    first = min((stage.iteration for stage in changed if stage.iteration), default=0)
    from_where = ", from its merge" if all(stage.kind != "rl" for stage in changed if stage.iteration == first) else ""
    what = f"reruns iteration {first} onward{from_where}" if first else f"reruns {changed[0].id} and what follows"
    if all(stage.kind in ("evaluate", "report") for stage in changed):
        what = "evaluates anew, trains nothing"
    cost = f"; {count_text(len(lost), 'started stage')} made anew, old artifacts stay" if lost else ""
    return SpecChange(change, f"{what}{cost}", lost)


def _key(after: Mapping[str, Stage], stage: Stage) -> str:
    return after[stage.id].key if stage.id in after else ""


def _with(run: WarpRun, change: FieldChange) -> WarpRun | None:
    """`run` with one field changed; None where that alone makes no valid spec."""
    document = run.model_dump(mode="json", by_alias=True, exclude={"status"})
    holder: Any = document
    *path, last = [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", change.path)]
    try:
        for part in path:
            holder = holder[part]
        if change.new is None:
            holder[last] = None
        else:
            holder[last] = change.new
        return WarpRun.model_validate(document)
    except (KeyError, IndexError, TypeError, ValidationError):
        return None


def changes_text(changes: tuple[SpecChange, ...], stream: TextIO) -> str:
    """One line a field: mark, path, old and new value, effect."""
    shown = [
        (each.mark, each.change.path, f"{_short(each.change.old)} -> {_short(each.change.new)}") for each in changes
    ]
    path_width = max(len(path) for _, path, _ in shown)
    value_width = max(len(values) for _, _, values in shown)
    lines = [
        f" {mark} {path.ljust(path_width)}  {values.ljust(value_width)}  {each.effect}"
        for each, (mark, path, values) in zip(changes, shown, strict=True)
    ]
    return "\n".join(paint(line, RED if each.lost else "", stream) for each, line in zip(changes, lines, strict=True))


def _short(value: object) -> str:
    text = (
        "null" if value is None else "[" + ", ".join(map(str, value)) + "]" if isinstance(value, list) else str(value)
    )
    return text if len(text) <= 48 else f"{text[:45]}..."


def confirm_changes(reference: RunReference, *, is_sure: bool) -> None:
    """Ask, on a terminal, before a changed spec makes stages anew; UserError when the answer is no or the policy says no."""
    changes = changes_since_last_run(reference) or ()
    outcome = [each for each in changes if each.lost]
    if not outcome:
        return
    names = ", ".join(each.change.path for each in outcome)
    if reference.run.spec.update_policy is UpdatePolicy.REJECT:
        raise UserError(
            f"{names}: a change of outcome, and spec.updatePolicy is Reject",
            hint="undo it, give the new spec another metadata.name, or set spec.updatePolicy to Restage",
        )
    warn("the spec has changed since the last run")
    note(changes_text(changes, sys.stderr))
    if not is_sure and has_somebody_to_ask() and not is_agreed("Go on?"):
        raise WarpctlError(
            "nothing was changed", hint=f"`warpctl plan {reference.typed}` shows more; --yes does not ask"
        )
