"""Laws of the planner, over random histories: whatever happens in whatever order, a run gets there, and only once.

The world (world.py) checks at every start and commit: inputs are published, no two live attempts, no mixed lineages, nothing
published is made again. These tests drive it with failures, stale views, engine crashes, edits, suspension and lost artifacts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.world import World, a_run
from warpctl.plan.observed import AttemptState, FailureClass, Root
from warpctl.plan.planner import plan
from warpctl.plan.progress import summarise
from warpctl.plan.stages import stages
from warpctl.spec.status import STALLED, SUCCEEDED, SUSPENDED
from warpctl.spec.warp_run import WarpRun

BASE = a_run()
KEEP_LITTLE = a_run(retention={"members": "UntilEvaluated", "merges": "Last"})
RUNS = [
    BASE,
    a_run(iterations=3, controls=["NoAnchor", "ComputeMatched"]),
    a_run(rlRuns=3, parallelism=2),
    KEEP_LITTLE,
    a_run(training={"steps": [10], "anchor": "NoAnchor"}, controls=["NoAnchor"]),
    # Two stage ids with one key, one of which retention would give up.
    a_run(
        training={"steps": [10], "anchor": "NoAnchor"},
        controls=["NoAnchor"],
        retention={"members": "UntilEvaluated", "merges": "Last"},
    ),
]
EDITS = [
    {},
    {"iterations": 3},
    {"suspend": True},
    {"training": {"steps": [11]}},
    {"evaluation": {"litiRates": ["0.5"]}},
    {"controls": ["SftAnchor"]},
    {"retention": {"members": "UntilEvaluated", "merges": "Last"}},
]


def drive(run: WarpRun, world: World, *, passes: int = 400) -> None:
    """Let everything go well until the run has succeeded or nothing moves."""
    for _ in range(passes):
        for action in plan(run, world.observe(), world.now):
            world.perform(action)
        for attempt in world.active():
            if attempt.is_stopping:
                world.end(attempt, code=44, failure=FailureClass.INTERRUPTED)
            else:
                world.succeed(attempt)
        world.pass_time(700)
        if summarise(run, world.observe(), world.now).is_true(SUCCEEDED):
            return


def is_done(run: WarpRun, world: World) -> bool:
    return summarise(run, world.observe(), world.now).is_true(SUCCEEDED)


@st.composite
def moves(draw: st.DrawFn) -> list[tuple[str, int]]:
    kinds = ["pass", "crash", "stale", "succeed", "publish", "lose", "break", "fail", "kill", "leave", "time"]
    return draw(st.lists(st.tuples(st.sampled_from(kinds), st.integers(0, 7)), max_size=120))


def play(run: WarpRun, world: World, story: list[tuple[str, int]], *, may_lose: bool) -> None:
    """Play a random story: passes, crashes in the middle of one, stale views, and what happens to attempts and artifacts."""
    stale = world.observe()
    for kind, number in story:
        active = world.active()
        chosen = active[number % len(active)] if active else None
        if kind == "pass":
            stale = world.observe()
            for action in plan(run, stale, world.now):
                world.perform(action)
        elif kind == "crash":  # the engine dies after some of its actions; the next one reads the world anew
            for action in plan(run, world.observe(), world.now)[: number % 4]:
                world.perform(action)
        elif kind == "stale":
            perform_like_an_executor(run, world, stale)
        elif kind == "lose" and may_lose and world.committed:
            world.committed.pop(sorted(world.committed)[number % len(world.committed)])
        elif kind == "break" and may_lose and world.committed:
            world.broken.add(sorted(world.committed)[number % len(world.committed)])
        elif kind == "time":
            world.pass_time(60 * number)
        elif chosen is None:
            continue
        elif kind == "succeed":
            world.succeed(chosen)
        elif kind == "publish":  # committed, and not yet gone
            world.publish(chosen)
        elif kind == "fail":
            world.end(chosen, code=1, failure=FailureClass.APPLICATION)
        elif kind == "kill":
            world.end(chosen, code=137, failure=FailureClass.INFRASTRUCTURE)
        elif kind == "leave" and chosen.is_stopping:
            world.end(chosen, code=44, failure=FailureClass.INTERRUPTED)


def perform_like_an_executor(run: WarpRun, world: World, stale: object) -> None:
    """A pass over an old view: the executor refuses what its deterministic names and a last look at the marker refuse."""
    for action in plan(run, stale, world.now):
        stage = getattr(action, "stage", None)
        if stage is not None and hasattr(action, "number"):
            numbers = [attempt.number for attempt in world.attempts.get(stage.key, ())]
            live = any(attempt.state is AttemptState.ACTIVE for attempt in world.attempts.get(stage.key, ()))
            gone = any(
                item.key not in world.committed or world.committed[item.key].manifest_digest != item.manifest_digest
                for item in action.inputs
            )
            if action.number in numbers or live or stage.key in world.committed or gone:
                continue
            if Root(stage.kind, stage.key) not in world.roots:
                continue
            world.perform(action)


@settings(max_examples=120)
@given(run=st.sampled_from(RUNS), story=moves(), repeatable=st.booleans(), may_lose=st.booleans())
def test_a_run_converges_after_any_story(
    run: WarpRun, story: list[tuple[str, int]], repeatable: bool, may_lose: bool
) -> None:
    """Random order, failures, crashes between any two actions, stale views, lost artifacts: once luck returns, it finishes."""
    world = World(is_repeatable=repeatable)
    play(run, world, story, may_lose=may_lose)
    world.pass_time(1)
    world.retry_since = world.now

    drive(run, world)

    assert is_done(run, world)


@settings(max_examples=80)
@given(run=st.sampled_from(RUNS), story=moves())
def test_nothing_finished_is_made_twice(run: WarpRun, story: list[tuple[str, int]]) -> None:
    """Without lost artifacts every key is published by exactly one attempt, and no attempt follows its publication."""
    world = World(is_repeatable=False)
    play(run, world, story, may_lose=False)
    world.pass_time(1)
    world.retry_since = world.now
    drive(run, world)

    assert is_done(run, world)
    assert len(world.publications) == len(set(world.publications))


@settings(max_examples=80)
@given(
    edits=st.lists(st.sampled_from(EDITS), min_size=1, max_size=4),
    stories=st.lists(moves(), min_size=4, max_size=4),
)
def test_edits_and_reverts_in_mid_run_converge(
    edits: list[dict[str, object]], stories: list[list[tuple[str, int]]]
) -> None:
    """Any sequence of edits in mid-run, then the original spec again: it finishes, and finished stages stay finished."""
    world = World(is_repeatable=False)
    for edit, story in zip(edits, stories, strict=False):
        play(a_run(**edit), world, story, may_lose=False)
    before = dict(world.committed)
    world.pass_time(1)
    world.retry_since = world.now

    drive(BASE, world)

    assert is_done(BASE, world)
    kept = {key: committed for key, committed in world.committed.items() if key in before}
    assert all(before[key] == committed for key, committed in kept.items())


def test_a_finished_run_has_nothing_to_do_even_when_intermediates_were_collected() -> None:
    world = World()
    drive(BASE, world)
    drive(BASE, world, passes=1)
    graph = stages(BASE, world.observe().imported())
    for stage_id in ("rl/1/1", "rl/1/2", "merge/1", "rl/2/1"):
        del world.committed[graph.stages[stage_id].key]

    assert plan(BASE, world.observe(), world.now) == ()


def test_retention_collects_members_once_they_are_evaluated_and_merges_but_the_last() -> None:
    world = World()
    drive(KEEP_LITTLE, world)
    drive(KEEP_LITTLE, world, passes=3)
    graph = stages(KEEP_LITTLE, world.observe().imported())
    for action in plan(KEEP_LITTLE, world.observe(), world.now):
        world.perform(action)
    policies = [stage for stage in graph.stages.values() if stage.kind in ("rl", "merge")]

    assert {stage.id for stage in policies if stage.key not in world.broken} == {"merge/2"}
    assert all(stage.key in world.committed for stage in policies)  # their records stay
    assert plan(KEEP_LITTLE, world.observe(), world.now) == ()


@pytest.mark.parametrize(
    "edit", [{"evaluation": {"litiRates": ["0.5"]}}, {"evaluation": {"seed": 1}}, {"controls": ["NoAnchor"]}]
)
def test_a_new_evaluation_of_collected_policies_trains_nothing_again(edit: dict[str, Any]) -> None:
    """Points of collected policies are found by content, or left out: never by another policy than the one that was merged."""
    keep_little = {"members": "UntilEvaluated", "merges": "Last"}
    world = World(is_repeatable=False)
    drive(KEEP_LITTLE, world)
    drive(KEEP_LITTLE, world, passes=3)
    before = len(world.history)

    drive(a_run(retention=keep_little, **edit), world)
    again = world.history[before:]

    assert is_done(a_run(retention=keep_little, **edit), world)
    assert not [stage for stage in again if stage.startswith(("rl/", "merge/"))]
    assert [stage for stage in again if "evaluate" in stage]


def test_roots_never_lose_a_published_stage_while_an_import_is_unfinished() -> None:
    """A held-out reward is added to a finished run: until it is imported nobody knows the keys behind it."""
    world = World()
    drive(BASE, world)
    graph = stages(BASE, world.observe().imported())
    models = {
        "sft": {"uri": "/sft"},
        "rewards": [{"type": "Checkpoint", "name": "quality", "uri": "/reward"}],
        "heldOutRewards": [{"type": "Checkpoint", "name": "second", "uri": "/second"}],
    }
    for action in plan(a_run(models=models), world.observe(), world.now):
        world.perform(action)

    assert {stage.key for stage in graph.stages.values()} <= {root.key for root in world.roots}


def test_a_report_that_an_edit_brings_back_is_shown_again() -> None:
    world = World()
    drive(BASE, world)
    drive(BASE, world, passes=2)
    first = world.shown_report
    other = a_run(evaluation={"confidenceLevel": "0.8"})
    drive(other, world)
    drive(other, world, passes=2)
    second = world.shown_report
    for action in plan(BASE, world.observe(), world.now):
        world.perform(action)

    assert first != second
    assert world.shown_report == first


def test_a_used_up_budget_stops_what_is_active_and_starts_nothing() -> None:
    world = World()
    run = a_run(budget={"gpuHours": "1"})
    for action in plan(run, world.observe(), world.now):
        world.perform(action)
    busy = {
        key: tuple(replace(attempt, gpu_seconds=1300.0) for attempt in attempts)
        for key, attempts in world.attempts.items()
    }
    world.attempts = busy

    actions = plan(run, world.observe(), world.now)
    status = summarise(run, world.observe(), world.now)

    assert [type(action).__name__ for action in actions] == ["Stop"] * 3
    assert status.condition(SUSPENDED).message == "1.1 GPU-hours are used, spec.budget.gpuHours is 1"


def test_a_suspended_run_stops_what_is_active_and_starts_nothing() -> None:
    world = World()
    for action in plan(BASE, world.observe(), world.now):
        world.perform(action)
    suspended = a_run(suspend=True)

    actions = plan(suspended, world.observe(), world.now)

    assert [type(action).__name__ for action in actions] == ["Stop"] * 3


def test_a_stage_that_fails_for_good_stalls_the_run_while_others_go_on() -> None:
    world = World()
    for _ in range(40):
        for action in plan(BASE, world.observe(), world.now):
            world.perform(action)
        for attempt in world.active():
            if world.starts[attempt.attempt_id].stage.id == "rl/1/1":
                world.end(attempt, code=1, failure=FailureClass.APPLICATION)
            else:
                world.succeed(attempt)
        world.pass_time(700)
    status = summarise(BASE, world.observe(), world.now)

    assert status.is_true(STALLED)
    assert world.history.count("rl/1/1") == 1 + BASE.spec.retry.limit
    assert "rl/1/2" in world.history
    assert "merge/1" not in world.history


def test_the_critical_path_starts_before_what_only_looks_at_it() -> None:
    """With one place at a time: both iterations are trained and merged before anything is evaluated, controls last."""
    run = a_run(parallelism=1, controls=["NoAnchor"])
    world = World()
    drive(run, world)
    order = [stage for stage in world.history if not stage.startswith(("import", "report"))]

    assert order == [
        *("rl/1/1", "rl/1/2", "merge/1", "rl/2/1", "rl/2/2", "merge/2"),
        *("evaluate/1", "evaluate/2"),
        *("control/NoAnchor/rl", "control/NoAnchor/evaluate"),
    ]
