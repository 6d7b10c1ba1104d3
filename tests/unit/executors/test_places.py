"""Which stages fit on a machine."""

from __future__ import annotations

import pytest

from warpctl.executors.places import Machine, Place, find_place, this_machine
from warpctl.spec.compute import StageCompute, num_cores


@pytest.mark.parametrize(("cpu", "cores"), [(None, 1), ("1", 1), ("500m", 1), ("1500m", 2), ("4", 4), ("2.5", 3)])
def test_cpu_quantities_become_whole_cores(cpu: str | None, cores: int) -> None:
    assert num_cores(StageCompute(cpu=cpu)) == cores


def test_stages_run_side_by_side_while_cores_are_free() -> None:
    machine, one = Machine(cores=2), StageCompute()

    assert find_place(machine, [], one) == Place(1)
    assert find_place(machine, [Place(1)], one) == Place(1)
    assert find_place(machine, [Place(1), Place(1)], one) is None


def test_a_stage_larger_than_the_machine_runs_alone() -> None:
    machine, big = Machine(cores=2), StageCompute(cpu="16")

    assert find_place(machine, [], big) == Place(2)
    assert find_place(machine, [Place(1)], big) is None


def test_each_gpu_has_one_owner() -> None:
    machine, pair = Machine(cores=64, gpus=("0", "1", "2")), StageCompute(gpus=2)

    assert find_place(machine, [], pair) == Place(1, ("0", "1"))
    assert find_place(machine, [Place(1, ("0",))], pair) == Place(1, ("1", "2"))
    assert find_place(machine, [Place(1, ("0", "2"))], pair) is None


def test_gpus_are_those_that_the_environment_allows() -> None:
    assert this_machine({"CUDA_VISIBLE_DEVICES": "3,5"}).gpus == ("3", "5")
    assert this_machine({"CUDA_VISIBLE_DEVICES": ""}).gpus == ()
