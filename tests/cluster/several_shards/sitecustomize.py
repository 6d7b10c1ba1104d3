"""Lets the small model's merge have several shards, and kills one of its pods: from outside, nothing in warpctl knows of it.

A merge worker that starts with this folder on PYTHONPATH begins a new file every 16,000 bytes instead of every 4 GiB. The second
node of the first attempt of merge/1 ends like a container that was killed, as soon as its first shard is finished.
"""

import json
import os

STAGE = json.loads(os.environ.get("WARPCTL_STAGE_INPUT") or "{}")
SHARD_BYTES = 16_000
KILLED = 137  # 128 + SIGKILL, which a container's first process cannot send itself


def _die_after_the_first_shard():
    from warpctl.storage.store import Store

    write = Store.write

    def write_and_die(self, path, data):
        write(self, path, data)
        if "/resume/" in path:
            os._exit(KILLED)

    Store.write = write_and_die


if STAGE.get("kind") == "merge":
    from warpctl.storage import headers

    headers.MAX_SHARD_BYTES = SHARD_BYTES
    is_first = STAGE["stageId"] == "merge/1" and STAGE["attemptId"].startswith("1-")
    if is_first and os.environ.get("PET_NODE_RANK") == "1":
        _die_after_the_first_shard()
