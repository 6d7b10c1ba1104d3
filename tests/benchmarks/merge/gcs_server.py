"""fake-gcs-server behind a proxy that adds a delay to each request: python -m tests.benchmarks.merge.gcs_server SECONDS

Prints its endpoint. Then each line that comes is answered with the number of requests since the last one; the end of the
input ends it. A process of its own: it holds the bodies of requests in memory.
"""

from __future__ import annotations

import json
import sys

from tests.servers.fault_proxy import Fault
from tests.servers.object_stores import running_fake_gcs

BUCKET = "warp"


def main() -> None:
    delay = Fault(delay_seconds=float(sys.argv[1]))
    with running_fake_gcs(BUCKET) as server:
        server.proxy.fail(delay, times=sys.maxsize)
        print(json.dumps(server.environment), flush=True)
        for _ in sys.stdin:
            with server.proxy.lock:
                count = len(server.proxy.seen)
                server.proxy.seen.clear()
            print(count, flush=True)


if __name__ == "__main__":
    main()
