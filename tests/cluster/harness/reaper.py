"""python -m tests.cluster.harness.reaper STATE: waits until its owner has gone, however it went, then destroys the cluster."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.cluster.harness.state import destroy, is_given_away

if __name__ == "__main__":
    sys.stdin.buffer.read()  # end of file once the last writing end of the pipe is closed
    state = Path(sys.argv[1])
    if state.exists() and not is_given_away(state):
        destroy(state)
