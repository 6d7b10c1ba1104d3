"""The promise of spec.compute.merge.memory, for the merge with most outputs, between buckets, with the least that it accepts."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.builders.checkpoints import MODEL_FILES, publish, safetensors_bytes
from tests.builders.merge_stage import merge_stage
from tests.servers.object_stores import running_fake_gcs, running_moto
from warpctl.merging.kernels import prepare
from warpctl.spec.merge_method import Granularity
from warpctl.spec.stage_input import Resources
from warpctl.spec.training import ServingCopy
from warpctl.storage.artifact import Artifact
from warpctl.storage.store import Store
from warpctl.workers.merge_memory import least_memory_bytes

pytestmark = pytest.mark.integration

ELEMENTS, TENSORS = 3_000_000, 8
MIB = 2**20
WORKER = """
import runpy
from pathlib import Path
try:
    runpy.run_module("warpctl.workers.merge", run_name="__main__")
finally:
    # Not getrusage: its figure begins with the memory of the process that started this one.
    print(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])
"""


def model(seed):
    """24 M parameters in bfloat16: bits of values between 1 and 2."""
    generator = np.random.default_rng(seed)
    tensors = [(f"layer.{n}", generator.integers(0x3F80, 0x4000, ELEMENTS, np.uint16), "BF16") for n in range(TENSORS)]
    return {**MODEL_FILES, "model.safetensors": safetensors_bytes(tensors)}


@pytest.mark.parametrize("server", [running_fake_gcs, running_moto], ids=["gcs", "s3"])
def test_a_merge_with_three_outputs_in_a_bucket_keeps_to_the_least_memory(server, monkeypatch):
    prepare()  # a compiler is no part of it
    with server() as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        root = f"{service.scheme}://{service.bucket}/store"
        store = Store.open(root)
        roles = ("init", "member/1", "member/2")
        inputs = [publish(store, model(n), key=f"{n:064d}", role=role) for n, role in enumerate(roles)]
        # Read twice, in blocks: what there is for weights is used up.
        stage = merge_stage(root, inputs, granularity=Granularity.GLOBAL, serving_copy=ServingCopy.BFLOAT16)
        memory_bytes = least_memory_bytes(len(roles), [root] * 3)
        stage = stage.model_copy(update={"resources": Resources(memory_bytes=memory_bytes)})

        worker = subprocess.run(
            [sys.executable, "-c", WORKER],
            env={**os.environ, "WARPCTL_STAGE_INPUT": stage.to_json()},
            capture_output=True,
            text=True,
            check=False,
        )

        assert worker.returncode == 0, worker.stderr[-2000:]
        written = Artifact.load(store, "merge", stage.key)
        assert {written.entry(f"{policy}/model.safetensors").size // MIB for policy in ("merged", "next-init")} == {91}
        peak_kib = int(worker.stdout.split()[-1])
        # A tenth stays free here: what a result has on its way is counted, not left to what is kept for the unforeseen.
        assert peak_kib * 1024 <= 0.9 * memory_bytes
