"""What no fault may change: each stage has one Job, one start and one publication."""

from __future__ import annotations

from tests.cluster.controllers import Place
from tests.cluster.stand_in_workers import StandInWorkers


def assert_nothing_twice(place: Place, workers: StandInWorkers, **more: int) -> None:
    """`more`: starts of the stages that were made to fail, by stage id with "_" for "/"."""
    allowed = {stage.replace("_", "/"): count for stage, count in more.items()}
    jobs = place.jobs_by_stage()
    assert jobs == {stage: allowed.get(stage, 1) for stage in jobs}
    starts = {workers.stages[key]: count for key, count in workers.started.items()}
    assert starts == {stage: allowed.get(stage, 1) for stage in starts}
    assert set(workers.published.values()) == {1}
