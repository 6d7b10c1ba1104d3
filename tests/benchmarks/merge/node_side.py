"""A merge stage on several nodes, each a process: python -m tests.benchmarks.merge.node_side NODES MAX_SHARD_BYTES

The stage input is in the environment, as a pod has it; shards of the size given instead of 4 GiB, so that a small model has several.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

RANK, COUNT, STAGE = "PET_NODE_RANK", "PET_NNODES", "WARPCTL_STAGE_INPUT"


def node(rank: int, num_nodes: int, max_shard_bytes: str) -> subprocess.Popen[bytes]:
    stage = {**json.loads(os.environ[STAGE]), "attemptId": f"1-{rank}"}
    own = {RANK: str(rank), COUNT: str(num_nodes), STAGE: json.dumps(stage)}
    return subprocess.Popen([sys.executable, "-m", __spec__.name, "1", max_shard_bytes], env={**os.environ, **own})


def work(max_shard_bytes: int) -> None:
    """What the pod's command does, but for the limit."""
    from warpctl.workers import harness, merge

    harness.run(functools.partial(merge.main, max_shard_bytes=max_shard_bytes))


def main() -> None:
    num_nodes, max_shard_bytes = int(sys.argv[1]), sys.argv[2]
    if RANK in os.environ:
        work(int(max_shard_bytes))
    processes = [node(rank, num_nodes, max_shard_bytes) for rank in range(num_nodes)]
    sys.exit(max(process.wait() for process in processes))


if __name__ == "__main__":
    main()
