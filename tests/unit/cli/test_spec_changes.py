"""What a changed spec would make anew, as `plan` says it and `run` asks."""

from __future__ import annotations

from tests.builders.world import a_run, imported
from warpctl.cli.spec_changes import spec_changes
from warpctl.plan.observed import Committed, Observed
from warpctl.plan.stages import stages
from warpctl.spec.warp_run import WarpRun

OLD = a_run(training={"steps": [10], "klCoefficient": "0.2"})
NEW = a_run()


def finished(run: WarpRun) -> Observed:
    """Everything of this run is published."""
    content = imported(run)
    graph = stages(run, content)
    return Observed(
        committed={
            stage.key: Committed(f"manifest of {stage.id}", content.get(stage.key, stage.id))
            for stage in graph.stages.values()
        }
    )


def test_an_outcome_change_names_the_started_stages_that_it_leaves_behind() -> None:
    (change,) = spec_changes(OLD, NEW, finished(OLD))

    assert change.effect.startswith("reruns iteration 1 onward; ")
    assert "rl/1/1" in change.lost


def test_a_reverted_edit_goes_back_to_what_is_there_and_loses_nothing() -> None:
    (change,) = spec_changes(OLD, NEW, finished(OLD), frozenset(finished(NEW).imported()))

    assert change.effect == "goes back to artifacts that are there"
    assert change.lost == ()
