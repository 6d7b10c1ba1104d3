"""The order of a Job's failure rules is an agreement with the Jobs that run already: it may grow at its end only."""

from __future__ import annotations

import pytest

from warpctl.errors import EXIT_FINAL, EXIT_INTERRUPTED, EXIT_RETRYABLE
from warpctl.plan.observed import FailureClass
from warpctl.render.failure_policy import class_of_rule, pod_failure_policy

RULES = pod_failure_policy()["rules"]


def rule_that_matches(code):
    for index, rule in enumerate(RULES):
        if code in rule.get("onExitCodes", {}).get("values", ()):
            return index
    return len(RULES)


def test_every_rule_fails_the_job_and_the_first_is_a_disruption():
    assert {rule["action"] for rule in RULES} == {"FailJob"}
    assert RULES[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert class_of_rule(0) is FailureClass.INFRASTRUCTURE


@pytest.mark.parametrize(
    ("code", "index", "failure"),
    [
        (EXIT_FINAL, 1, FailureClass.FINAL),
        (EXIT_INTERRUPTED, 2, FailureClass.INFRASTRUCTURE),
        (137, 2, FailureClass.INFRASTRUCTURE),
        (143, 2, FailureClass.INFRASTRUCTURE),
        (EXIT_RETRYABLE, 3, FailureClass.APPLICATION),
        (1, 3, FailureClass.APPLICATION),
    ],
)
def test_an_exit_code_has_a_rule_and_the_rule_a_class(code, index, failure):
    assert rule_that_matches(code) == index
    assert class_of_rule(index) is failure


def test_an_injected_containers_codes_do_not_count():
    for rule in RULES[1:]:
        assert rule["onExitCodes"]["containerName"] == "worker"
        assert rule["onExitCodes"]["operator"] == "In"
        assert 0 not in rule["onExitCodes"]["values"]
