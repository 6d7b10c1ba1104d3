"""Merges, each in a process of its own that begins at once: forked from one that has imported everything.

Standard input: one line of JSON for each, {"stage": ..., "maxShardBytes": ...} for an attempt of a merge stage, or
{"arguments": [...]} for `warpctl` with these. Standard output: the pid of each.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback

from tests.builders.contexts import context_of
from warpctl.cli.main import run_command
from warpctl.spec.stage_input import StageInput
from warpctl.workers.merge import main


def serve() -> None:
    """Fork a merge for each line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: no zombies
    for line in sys.stdin:
        told = json.loads(line)
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)  # its log is no answer
            try:
                if "arguments" in told:
                    os._exit(run_command(told["arguments"]))
                main(context_of(StageInput.model_validate(told["stage"])), max_shard_bytes=told["maxShardBytes"])
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    serve()
