"""How many stages fit on this machine: cores and GPUs, and which are taken."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from warpctl.spec.compute import StageCompute, num_cores
from warpctl.storage.parallel import cores_of_this_process


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is: cores, and the ids of GPUs as CUDA_VISIBLE_DEVICES spells them."""

    cores: int
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """What one attempt takes."""

    cores: int
    gpus: tuple[str, ...] = ()


def this_machine(environment: Mapping[str, str]) -> Machine:
    """Cores that this process may use, and the GPUs that CUDA_VISIBLE_DEVICES or nvidia-smi name."""
    cores = cores_of_this_process()
    if "CUDA_VISIBLE_DEVICES" in environment:
        return Machine(cores, tuple(gpu for gpu in environment["CUDA_VISIBLE_DEVICES"].split(",") if gpu.strip()))
    if shutil.which("nvidia-smi") is None:
        return Machine(cores)
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    return Machine(cores, tuple(answer.stdout.split()) if answer.returncode == 0 else ())


def find_place(machine: Machine, taken: Iterable[Place], compute: StageCompute) -> Place | None:
    """A place for a stage beside those taken, or None. An empty machine takes any stage that its GPUs allow."""
    used = list(taken)
    cores = num_cores(compute)
    if used and sum(place.cores for place in used) + cores > machine.cores:
        return None
    busy = {gpu for place in used for gpu in place.gpus}
    free = [gpu for gpu in machine.gpus if gpu not in busy]
    if len(free) < compute.gpus:
        return None
    return Place(min(cores, machine.cores), tuple(free[: compute.gpus]))
