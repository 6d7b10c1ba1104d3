"""Stages of several nodes: any of them may be the one that publishes."""

from __future__ import annotations

from dataclasses import replace

from tests.builders.world import World, a_run
from warpctl.plan.actions import Stop
from warpctl.plan.observed import Attempt
from warpctl.plan.planner import plan
from warpctl.plan.progress import summarise
from warpctl.spec.warp_run import WarpRun


def published_by(node: str) -> tuple[WarpRun, World, Attempt]:
    """A run whose first attempt has just published under the id of another of its nodes, and has not left yet."""
    run, world = a_run(), World()
    for action in plan(run, world.observe(), world.now):
        world.perform(action)
    attempt = replace(world.active()[0], id_prefix="1-job-")
    world.attempts[attempt.key] = (attempt,)
    world.publish(attempt)
    world.committed[attempt.key] = replace(world.committed[attempt.key], attempt_id=node)
    return run, world, attempt


def test_an_attempt_whose_second_node_has_published_may_leave_by_itself() -> None:
    run, world, _ = published_by("1-job-1-pod")
    assert not [action for action in plan(run, world.observe(), world.now) if isinstance(action, Stop)]


def test_an_attempt_is_stopped_when_another_ones_node_has_published() -> None:
    run, world, attempt = published_by("1-other-1-pod")
    (stop,) = [action for action in plan(run, world.observe(), world.now) if isinstance(action, Stop)]
    assert (stop.attempt, stop.reason) == (attempt, "another attempt has published this stage")


def test_what_the_second_node_has_published_is_this_runs_work_and_no_cache_hit() -> None:
    for node, is_cached in (("1-job-1-pod", False), ("1-other-1-pod", True)):
        run, world, attempt = published_by(node)
        rows = summarise(run, world.observe(), world.now).stages
        assert next(row for row in rows if row.key == attempt.key).cached is is_cached
