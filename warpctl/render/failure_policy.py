"""Which ends of a pod fail its Job, and what class of failure each is.

One list for both directions: its order is the order of the rules in the Job, and a failed Job's condition names the index of the
rule that failed it, which tells the class also when the pods are gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from warpctl.errors import EXIT_FINAL, EXIT_INTERRUPTED
from warpctl.plan.observed import FailureClass

CONTAINER: Final = "worker"
"""The one container of a worker's pod."""
SIGKILL, SIGTERM = 137, 143
"""128 + signal: a worker that was killed, or ended by a signal that it did not see."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: exit codes, or (without any) the DisruptionTarget condition."""

    failure: FailureClass
    exit_codes: tuple[int, ...] = ()


RULES = (
    Rule(FailureClass.INFRASTRUCTURE),
    Rule(FailureClass.FINAL, (EXIT_FINAL,)),
    # Nobody but the place can have asked it to stop: whoever suspends a run deletes the Job.
    Rule(FailureClass.INFRASTRUCTURE, (EXIT_INTERRUPTED, SIGKILL, SIGTERM)),
)


def pod_failure_policy() -> dict[str, Any]:
    """spec.podFailurePolicy of every Job; what no rule names fails it too (backoffLimit 0), as an application failure."""
    return {"rules": [{"action": "FailJob", **_condition(rule)} for rule in RULES]}


def class_of_rule(index: int) -> FailureClass:
    """Class of the failure that a Job's condition blames on the rule with this index."""
    return RULES[index].failure if index < len(RULES) else FailureClass.APPLICATION


def _condition(rule: Rule) -> dict[str, Any]:
    if not rule.exit_codes:
        return {"onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    # The worker's code alone: a sidecar that a mesh injects has codes of its own.
    return {"onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(rule.exit_codes)}}
